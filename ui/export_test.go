package ui

import (
	"github.com/a-h/templ"

	"wuamesh/appliance"
)

// TrendChart is the overview's line of compliant hosts.
func TrendChart(days []appliance.TrendDay) templ.Component { return trendChart(trendOf(days)) }
