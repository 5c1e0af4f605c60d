package cli

import (
	"context"
	"flag"
	"net/http"

	"wuamesh/appliance"
)

// ringFlags say when a package is promoted by itself.
type ringFlags struct {
	days, hosts, percent int
	pause, resume, off   bool
}

func (f *ringFlags) flags(fs *flag.FlagSet) {
	fs.IntVar(&f.days, "days", -1, "ring: promote by itself after so many days without an edit")
	fs.IntVar(&f.hosts, "hosts", -1, "ring: when so many hosts have installed something of it")
	fs.IntVar(&f.percent, "percent", -1, "ring: and at most so many per cent of those that tried failed")
	fs.BoolVar(&f.pause, "pause", false, "ring: stay as it is until --resume")
	fs.BoolVar(&f.resume, "resume", false, "ring: go on after --pause")
	fs.BoolVar(&f.off, "off", false, "ring: leave promoting to people again")
}

// ring shows how a package is promoted by itself, or changes it.
func (t *target) ring(ctx context.Context, s Streams, name string, f ringFlags) error {
	var p appliance.PackageDetail
	if err := t.call(ctx, s, "rules/"+name, nil, &p); err != nil {
		return err
	}
	set := f.days >= 0 || f.hosts >= 0 || f.percent >= 0 || f.pause || f.resume
	switch {
	case f.off && set || f.pause && f.resume:
		return usage("--off goes alone, and --pause or --resume")
	case f.off:
		if err := t.send(ctx, s, http.MethodDelete, "rules/"+name+"/ring", nil, &p); err != nil {
			return err
		}
	case set:
		r := appliance.Ring{Days: 7, Hosts: 5, Percent: 5}
		if p.Ring != nil {
			r = p.Ring.Ring
		} else if f.pause || f.resume {
			return usage(name + " is not promoted by itself: give --days, --hosts and --percent first")
		}
		for to, from := range map[*int]int{&r.Days: f.days, &r.Hosts: f.hosts, &r.Percent: f.percent} {
			if from >= 0 {
				*to = from
			}
		}
		r.Paused = (r.Paused || f.pause) && !f.resume
		if err := t.send(ctx, s, http.MethodPut, "rules/"+name+"/ring", r, &p); err != nil {
			return err
		}
	case p.Ring == nil && !t.json:
		return usage(name + " is not promoted by itself; --days, --hosts and --percent change that")
	}
	if t.json {
		return printJSON(s.Out, p.Ring)
	}
	return printPackage(s, p)
}
