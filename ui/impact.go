package ui

import (
	"wuamesh/agentproto/rules"
	"wuamesh/appliance"
)

// stateShifts is the legend under the two bars: what each state gains or
// loses.
func stateShifts(before, after appliance.StateCounts) []part {
	list := []part{}
	for _, s := range []struct {
		class, name string
		was, is     int
	}{
		{"b-ok", "OK", before.OK, after.OK}, {"b-pen", "PENDING", before.Pending, after.Pending},
		{"b-mis", "MISSING", before.Missing, after.Missing}, {"b-dis", "DISCARDED", before.Discarded, after.Discarded},
	} {
		label := s.name
		switch {
		case s.is > s.was:
			label += " +" + num(s.is-s.was)
		case s.is < s.was:
			label += " −" + num(s.was-s.is)
		}
		list = append(list, part{s.class, s.is, label})
	}
	return list
}

func sizeOrNone(n int64) string {
	if n == 0 {
		return "nothing"
	}
	return size(n)
}

// impactWhy says what will decide about an update, and what was.
func impactWhy(u appliance.ImpactUpdate) string {
	if u.Stays {
		return "Already installed there. It stays: nothing is removed by itself."
	}
	by := u.By
	switch u.To {
	case rules.Forbidden:
		by = "Forbidden by " + by
	case rules.NoRule:
		by = "No rule allows it"
	case rules.Hidden:
		by = "A newer one replaces it"
	case rules.Delayed:
		by = "Allowed by " + by + ", held back by install_delay"
	default:
		by = "Allowed by " + by
	}
	return by + "; was " + string(u.From) + "."
}
