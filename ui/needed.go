package ui

import "wuamesh/appliance"

// neededText sums the panel up.
func neededText(c appliance.FileCoverage) string {
	if c.All == 0 {
		return "No host waits for a file."
	}
	text := count(c.All, "file") + ", as nodes said last."
	if len(c.Files) < c.All {
		text = "The " + num(len(c.Files)) + " that most hosts wait for, of " + num(c.All) + ", as nodes said last."
	}
	return text
}
