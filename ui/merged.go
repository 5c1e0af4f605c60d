package ui

import "wuamesh/appliance"

// A dispute is what one of two packages forbids and the other allows.
type dispute struct {
	Winner, Loser string
	Hosts         int
	Updates       []appliance.DisputedUpdate
}

// disputes are those of a package with another one of its hosts, by who wins.
func disputes(name string, m appliance.Merged) (list []dispute) {
	for _, d := range []dispute{{Winner: m.Package, Loser: name, Hosts: m.Wins}, {Winner: name, Loser: m.Package, Hosts: m.Loses}} {
		for _, u := range m.Disputed {
			if u.Winner == d.Winner {
				d.Updates = append(d.Updates, u)
			}
		}
		if d.Hosts > 0 {
			list = append(list, d)
		}
	}
	return list
}

// quarrels is how many of the other packages disagree about something.
func quarrels(list []appliance.Merged) (n int) {
	for _, m := range list {
		if m.Wins+m.Loses > 0 {
			n++
		}
	}
	return n
}

// mergedText sums the panel up.
func mergedText(list []appliance.Merged) string {
	others := count(len(list), "other package")
	switch n := quarrels(list); {
	case len(list) == 0:
		return "These hosts get no other package."
	case n == 0:
		return others + ", no disagreement."
	case n == 1:
		return others + ", 1 disagrees. Forbid wins."
	default:
		return others + ", " + num(n) + " disagree. Forbid wins."
	}
}
