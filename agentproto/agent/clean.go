package agent

import (
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

// What Windows, firmware and other people's drivers say is not always what a
// node accepts: serial numbers with control characters, CVE lists with typing
// errors. One such word must not keep a host from reporting at all, so what
// comes from the machine is put in order here, before it is kept.

// cleanFacts makes facts that a node accepts.
func cleanFacts(f agentproto.Facts) agentproto.Facts {
	f.Name = oneLine(f.Name, 64)
	if f.Name == "" {
		f.Name = "unnamed"
	}
	for _, s := range []*string{
		&f.FQDN, &f.Domain, &f.ADSite, &f.OS, &f.Build, &f.Arch, &f.Language, &f.Manufacturer, &f.Model, &f.Serial, &f.WUAVersion, &f.WUAService, &f.User,
	} {
		*s = oneLine(*s, 256)
	}
	f.Addresses = slices.DeleteFunc(slices.Clone(f.Addresses), func(a string) bool { _, err := netip.ParseAddr(a); return err != nil })
	f.Addresses = f.Addresses[:min(len(f.Addresses), 32)]
	f.RestartWhy = slices.Clone(f.RestartWhy)[:min(len(f.RestartWhy), 20)]
	for i, s := range f.RestartWhy {
		f.RestartWhy[i] = oneLine(s, 256)
	}
	f.Power, f.FreeGB = oneLine(f.Power, 16), min(max(f.FreeGB, 0), 1<<20)
	if y := f.Booted.Year(); y < 2000 || y > 2100 {
		f.Booted = time.Time{}
	}
	return f
}

// oneLine makes a line of text of at most n bytes of UTF-8.
func oneLine(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(cut(s, n))
}

// cut shortens s to at most n bytes without breaking a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// cleanFound puts in order what a search returned: each update once, in its
// highest revision, and with a description that a node accepts. It returns
// the ids of updates it had to leave out or shorten.
func cleanFound(found []Found) (list []Found, odd []rules.UpdateID) {
	at := make(map[rules.UpdateID]int, len(found))
	for _, f := range found {
		id, err := rules.ParseUpdateID(string(f.Update.ID))
		if err != nil || len(list) == agentproto.MaxStatuses {
			odd = append(odd, f.Update.ID)
			continue
		}
		f.Update.ID = id
		if was := cleanUpdate(&f.Update); was {
			odd = append(odd, id)
		}
		i, twice := at[id]
		switch {
		case !twice:
			at[id] = len(list)
			list = append(list, f)
		case f.Update.Revision > list[i].Update.Revision:
			list[i] = f
		}
	}
	return list, odd
}

// cleanUpdate shortens and drops what a node would refuse, and says whether
// it had to drop more than length.
func cleanUpdate(u *agentproto.Update) (odd bool) {
	u.Title = oneLine(u.Title, 1000)
	if u.Title == "" {
		u.Title = string(u.ID)
	}
	u.Description = cut(strings.ToValidUTF8(u.Description, "\uFFFD"), 8<<10)
	u.Classification.Title = oneLine(u.Classification.Title, 256)
	u.Products = slices.Clone(u.Products) // the machine may keep its own
	for i := range u.Products {
		u.Products[i].Title = oneLine(u.Products[i].Title, 256)
	}
	if accepted(*u) {
		return false
	}
	// Drop one field after the other that could be it; what people and rules
	// name an update by is kept longest.
	for _, drop := range []func(){
		func() { u.SupportURL = "" },
		func() {
			u.CVEs = keep(u.CVEs, func(s string) agentproto.Update { return agentproto.Update{CVEs: []string{s}} }, 2000)
		},
		func() {
			u.Bulletins = keep(u.Bulletins, func(s string) agentproto.Update { return agentproto.Update{Bulletins: []string{s}} }, 100)
		},
		func() {
			u.KBs = keep(u.KBs, func(s string) agentproto.Update { return agentproto.Update{KBs: []string{s}} }, 100)
		},
		func() {
			u.Supersedes = keep(u.Supersedes, func(s rules.UpdateID) agentproto.Update { return agentproto.Update{Supersedes: []rules.UpdateID{s}} }, 2000)
		},
		func() {
			u.Products = keep(u.Products, func(c agentproto.Category) agentproto.Update {
				return agentproto.Update{Products: []agentproto.Category{c}}
			}, 100)
		},
		func() { u.Restart = "" },
		func() { u.Severity = rules.Unspecified },
		func() { u.Published = time.Time{} },
		// An update without its files cannot be fetched; it is still reported,
		// and Windows says what it lacks when it is to be installed.
		func() {
			u.Files = keep(u.Files, func(f agentproto.File) agentproto.Update { return agentproto.Update{Files: []agentproto.File{f}} }, agentproto.MaxFiles)
		},
		func() { u.Classification = agentproto.Category{} },
		func() { *u = agentproto.Update{ID: u.ID, Revision: max(u.Revision, 0), Title: u.Title} },
	} {
		if drop(); accepted(*u) {
			break
		}
	}
	return true
}

// keep returns the elements a node accepts in an otherwise good description,
// at most most.
func keep[T any](list []T, with func(T) agentproto.Update, most int) []T {
	list = slices.DeleteFunc(slices.Clone(list), func(e T) bool {
		u := with(e)
		u.ID, u.Title = "00000000-0000-4000-8000-000000000000", "x"
		return !accepted(u)
	})
	return list[:min(len(list), most)]
}

func accepted(u agentproto.Update) bool {
	return agentproto.Report{Protocol: agentproto.Version, Updates: []agentproto.Update{u}}.Validate() == nil
}
