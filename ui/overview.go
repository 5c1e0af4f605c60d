package ui

import (
	"net/http"
	"strings"

	"wuamesh/appliance"
)

func (u *UI) overview(r *http.Request) (reply, error) {
	s, err := u.node.Status(r.Context())
	if err != nil {
		return reply{}, err
	}
	return show(overviewPage(s)), nil
}

func within(path, href string) bool { return path == href || strings.HasPrefix(path, href+"/") }

// compliance is the share of hosts, as a figure with one decimal.
func compliance(s appliance.Status) string {
	if s.Hosts == 0 {
		return "–"
	}
	tenths := s.Compliant * 1000 / s.Hosts
	return num(tenths/10) + "." + num(tenths%10)
}

func hostParts(s appliance.Status) []part {
	return []part{{"f-ok", s.Compliant, num(s.Compliant) + " compliant"}, {"f-mis", s.Hosts - s.Compliant, num(s.Hosts-s.Compliant) + " not"}}
}
