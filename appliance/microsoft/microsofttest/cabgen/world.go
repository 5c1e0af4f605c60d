package cabgen

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

type kind int

const (
	catKind kind = iota // Company, ProductFamily, Product, UpdateClassification
	detectoid
	bundle // has titles and categories, no files
	leaf   // child of a bundle: has the files
)

// update is one revision of the catalogue.
type update struct {
	kind         kind
	rev, revNo   int // RevisionId, RevisionNumber
	id           string
	created      time.Time
	title        string
	catType      string // of a category
	class        string // GUIDs
	family       string
	products     []string
	kb           string // digits
	severity     string
	bulletin     string
	cves         []string
	prereqs      []string
	prereqOr     []string
	supersededBy []*update
	dangling     []int    // superseding revisions that are not in the catalogue
	supersedes   []string // update ids, some of them not in the catalogue
	bundledBy    []*update
	children     []*update
	files        []*file
	lang         string   // of a language specific leaf
	locales      []string // that have localized properties
	handler      string
	superseded   bool
	gone         bool // expired or replaced by a newer revision
	shard        int  // number of its packageN.cab
}

type file struct {
	sha1, sha256 []byte
	name, dir    string // dir: scheme, host and path
	size         int64
	modified     time.Time
	patching     string
}

func (f *file) id() string { return base64.StdEncoding.EncodeToString(f.sha1) }

// url is dir plus the lower-case name with the SHA-1 before the extension.
func (f *file) url() string {
	n := strings.ToLower(f.name)
	i := strings.LastIndexByte(n, '.')
	return f.dir + n[:i] + "_" + hex.EncodeToString(f.sha1) + n[i:]
}

// A Change is what the last month brought, as RevisionIds.
type Change struct {
	Added           []int
	Removed         []int
	Revised         []int // new revisions of older updates
	NewlySuperseded []int
}

type world struct {
	seed       uint64
	rng        *rand.Rand
	updates    []*update // ascending revision ids
	detectoids []*update
	chains     map[string][]*update
	usedKB     map[int]bool
	rev, step  int
	live       int
	month      int   // as ym()
	bounds     []int // RANGESTART of package2.cab, package3.cab, ...
	inLast     int   // updates in the last shard
	perCab     int
	last       Change
	log        bool // collect changes
}

var baseMonth = ym(2026, 6)

func newWorld(seed uint64, n, perCab int) *world {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), chains: map[string][]*update{},
		usedKB: map[int]bool{}, perCab: perCab, step: 1} // the oldest revision ids are dense
	w.categories(n * 3 / 100)
	w.step = max(1, 40_000_000/n)
	fixed := w.live
	for m := 0; m <= baseMonth; m++ {
		w.fillMonth(m, fixed+(n-fixed)*(m+1)/(baseMonth+1), n)
	}
	w.step = 60
	w.shard()
	return w
}

// shard distributes all records anew.
func (w *world) shard() {
	w.bounds = nil
	for _, u := range w.updates {
		if !u.gone {
			w.place(u)
		}
	}
}

// place puts an update into the last shard, or opens a new one.
func (w *world) place(u *update) {
	if w.bounds == nil {
		w.bounds, w.inLast = []int{0}, 0
	}
	if w.inLast == w.perCab {
		w.bounds = append(w.bounds, u.rev)
		w.inLast = 0
	}
	w.inLast++
	u.shard = len(w.bounds) + 1
}

// nextMonth adds about n records for the month after the current one, expires
// old cumulative ones and re-releases a few. Without reshard, the bounds of
// the inner cabinets stay and new records are appended.
func (w *world) nextMonth(n int, reshard bool) {
	m := w.month + 1
	w.rng = rand.New(rand.NewPCG(w.seed, uint64(1000+m)))
	w.last, w.log = Change{}, true
	before := len(w.updates)
	w.fillMonth(m, w.live+n, w.live+n+1<<30)
	for range 2 { // re-release: a new revision takes the place of the old one
		for range 100 {
			u := w.updates[w.rng.IntN(before)]
			if u.gone || u.kind != bundle {
				continue
			}
			old := *u
			old.gone = true
			w.last.Removed = append(w.last.Removed, old.rev)
			i := slices.Index(w.updates, u)
			w.updates[i] = &old
			u.revNo++
			u.rev = w.nextRev()
			w.updates = append(w.updates, u)
			w.last.Revised = append(w.last.Revised, u.rev)
			break
		}
	}
	if reshard {
		w.shard()
	} else {
		for _, u := range w.updates[before:] {
			if !u.gone {
				w.place(u)
			}
		}
	}
	w.log = false
}

func (w *world) fillMonth(m, target, limit int) {
	w.month = m
	done := map[int]bool{}
	for w.live < target {
		if limit-w.live == 1 {
			w.addDetectoid(m)
			continue
		}
		sum := 0
		active := func(i int) bool {
			t := &tracks[i]
			return m >= t.from && (t.to == 0 || m <= t.to) && !done[i]
		}
		for i := range tracks {
			if active(i) {
				sum += tracks[i].weight
			}
		}
		pick := w.rng.IntN(sum)
		for i := range tracks {
			if !active(i) {
				continue
			}
			if pick -= tracks[i].weight; pick < 0 {
				w.release(i, m, limit-w.live)
				done[i] = tracks[i].cumulative
				break
			}
		}
	}
}

func (w *world) nextRev() int {
	w.rev += 1 + w.rng.IntN(2*w.step)
	return w.rev
}

func (w *world) guid() string {
	var b [16]byte
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (w *world) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return b
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) add(u *update) *update {
	if u.id == "" {
		u.id = w.guid()
	}
	u.rev, u.revNo = w.nextRev(), 100+w.rng.IntN(8)
	w.updates = append(w.updates, u)
	w.live++
	if w.log {
		w.last.Added = append(w.last.Added, u.rev)
	}
	return u
}

// when is the second Tuesday of a month plus some hours.
func (w *world) when(m int) time.Time {
	t := time.Date(2009, time.Month(m+1), 1, 17, 0, 0, 0, time.UTC)
	t = t.AddDate(0, 0, (int(time.Tuesday)-int(t.Weekday())+7)%7+7)
	return t.Add(time.Duration(w.rng.IntN(8*3600)-4*3600) * time.Second)
}

func (w *world) categories(detectoids int) {
	cat := func(c category, typ string) {
		u := w.add(&update{kind: catKind, id: c.guid, title: c.title, catType: typ, created: w.when(0)})
		u.locales = []string{"en", "de", "fr"}
	}
	cat(category{microsoft, "Microsoft"}, "Company")
	for _, k := range sortedKeys(families) {
		cat(families[k], "ProductFamily")
	}
	for _, k := range sortedKeys(products) {
		cat(products[k], "Product")
	}
	for _, c := range classifications {
		cat(c, "UpdateClassification")
	}
	for range detectoids {
		w.addDetectoid(0)
	}
}

func (w *world) addDetectoid(m int) {
	w.detectoids = append(w.detectoids, w.add(&update{kind: detectoid, created: w.when(m),
		title: fmt.Sprintf("Detectoid %d (x%d)", len(w.detectoids)+1, 86-22*(len(w.detectoids)%2)), locales: []string{"en"}}))
}

// kbFor draws an unused article number of about the right size for the month.
func (w *world) kbFor(m int) string {
	pts := [][2]int{{0, 958000}, {20, 980000}, {21, 2100000}, {60, 2910000}, {94, 3190000}, {96, 4003000}, {143, 4592000}, {144, 4598000}, {145, 5000500}, {300, 5150000}}
	for {
		for i := 1; i < len(pts); i++ {
			a, b := pts[i-1], pts[i]
			if m >= a[0] && m < b[0] {
				span := (b[1] - a[1]) / (b[0] - a[0])
				kb := a[1] + span*(m-a[0]) + w.rng.IntN(span+200*len(w.usedKB)/1000+50)
				if !w.usedKB[kb] {
					w.usedKB[kb] = true
					return fmt.Sprint(kb)
				}
			}
		}
	}
}

func (w *world) release(ti, m, budget int) {
	t := &tracks[ti]
	kb := w.kbFor(m)
	comp := ""
	if len(t.components) > 0 {
		comp = t.components[w.rng.IntN(len(t.components))]
	}
	y, mon := 2009+m/12, m%12+1
	sev, bulletin := "", ""
	var cves []string
	if t.class == "Security Updates" || t.class == "Update Rollups" {
		sev = []string{"Critical", "Important", "Important", "Moderate", "Low", ""}[w.rng.IntN(6)]
		n := 1 + w.rng.IntN(5)
		if t.cumulative {
			n = 15 + w.rng.IntN(60)
		}
		for range n {
			cves = append(cves, fmt.Sprintf("CVE-%d-%04d", y, 1+w.rng.IntN(49999)))
		}
		if m < ym(2017, 3) && sev != "" {
			bulletin = fmt.Sprintf("MS%02d-%03d", y%100, 1+w.rng.IntN(130))
		}
	}
	var class string
	for _, c := range classifications {
		if c.title == t.class {
			class = c.guid
		}
	}
	fill := func(s string, v variant, kb string) string {
		return strings.NewReplacer("{ym}", fmt.Sprintf("%d-%02d", y, mon), "{v}", v.title, "{c}", comp, "{kb}", kb, "{arch}", v.arch).Replace(s)
	}
	var prev *update // the last bundle, and the architecture of its files
	prevArch := ""
	for vi, v := range t.variants {
		if m < v.from || v.to > 0 && m > v.to {
			continue
		}
		var leaves []*update
		share := prev != nil && prevArch == v.arch && len(t.products) > 1
		if share && w.chance(0.5) {
			leaves = prev.children // one leaf in two bundles
		}
		n := max(1, t.langs)
		if leaves != nil {
			n = 0
		}
		if budget < n+1 {
			if n = budget - 1; n < 1 {
				return
			}
		}
		budget -= n + 1
		for i := range n {
			l := w.add(&update{kind: leaf, created: w.when(m), handler: strings.TrimSuffix(t.handler, "Express")})
			for range 1 + w.rng.IntN(3) {
				l.prereqs = append(l.prereqs, w.detectoids[w.rng.IntN(len(w.detectoids))].id)
			}
			if t.langs > 0 {
				l.lang = languages[i]
			}
			if prev != nil && len(prev.children) > i && (share || t.langs > 0 && w.chance(0.4)) {
				l.files = prev.children[i].files // another leaf for the same files
			} else {
				l.files = w.filesFor(t, m, l, fill(t.file, v, "KB"+kb))
			}
			if w.chance(0.9) {
				l.title, l.locales = fmt.Sprintf("KB%s-%s-%s", kb, v.arch, l.lang), []string{"en"}
			}
			leaves = append(leaves, l)
		}
		b := w.add(&update{kind: bundle, created: w.when(m), title: fill(t.title, v, "KB"+kb), kb: kb, severity: sev,
			bulletin: bulletin, cves: cves, class: class, family: families[t.products[0][:3]].guid, children: leaves})
		for i := range 1 + w.rng.IntN(min(2, len(t.products))) {
			b.products = append(b.products, products[t.products[(vi+i)%len(t.products)]].guid)
		}
		for _, l := range leaves {
			l.bundledBy = append(l.bundledBy, b)
		}
		b.locales = languages[:1+min(w.rng.IntN(40), len(languages)-1)*w.rng.IntN(2)]
		b.prereqs = []string{class}
		for range 4 + w.rng.IntN(6) {
			b.prereqs = append(b.prereqs, w.detectoids[w.rng.IntN(len(w.detectoids))].id)
		}
		if w.chance(0.01) {
			b.prereqs = append(b.prereqs, w.guid()) // names nothing in the catalogue
		}
		if len(b.products) > 1 {
			b.prereqOr = b.products
		} else {
			b.prereqs = append(b.prereqs, b.products...)
		}
		w.chain(fmt.Sprint(ti, "/", comp, "/", vi), b, t.cumulative)
		prev, prevArch = b, v.arch
	}
}

// chain links a bundle to the ones it supersedes. Cumulative lines keep 18
// months; what is older expires from the catalogue but stays named.
func (w *world) chain(key string, b *update, cumulative bool) {
	c := w.chains[key]
	if cumulative || w.chance(0.12) {
		for i := len(c) - 1; i >= 0; i-- {
			p := c[i]
			if !p.gone {
				if len(p.supersededBy) < 30 {
					p.supersededBy = append(p.supersededBy, b)
				}
				if !p.superseded && w.log {
					w.last.NewlySuperseded = append(w.last.NewlySuperseded, p.rev)
				}
				p.superseded = true
			}
			if len(b.supersedes) < 60 {
				b.supersedes = append(b.supersedes, p.id)
			}
			if !cumulative && w.chance(0.12) {
				break
			}
		}
	}
	if w.chance(0.003) { // a revision id that was skipped
		if id := w.updates[len(w.updates)-2].rev + 1; id < b.rev {
			b.dangling = append(b.dangling, id)
		}
	}
	c = append(c, b)
	w.chains[key] = c
	if cumulative && len(c) > 18 {
		w.expire(c[len(c)-19])
	}
}

func (w *world) expire(b *update) {
	if b.gone {
		return
	}
	drop := func(u *update) {
		u.gone = true
		w.live--
		if w.log {
			w.last.Removed = append(w.last.Removed, u.rev)
		}
	}
	drop(b)
	for _, l := range b.children {
		l.bundledBy = slices.DeleteFunc(l.bundledBy, func(x *update) bool { return x == b })
		if len(l.bundledBy) == 0 && !l.gone {
			drop(l)
		}
	}
}

func (w *world) filesFor(t *track, m int, l *update, name string) []*file {
	y, mon := 2009+m/12, m%12+1
	part := map[string]string{"Security Updates": "secu", "Critical Updates": "crup", "Update Rollups": "uprl", "Updates": "updt", "Service Packs": "svpk"}[t.class]
	dir := fmt.Sprintf("http://download.windowsupdate.com/%c/msdownload/update/software/%s/%d/%02d/", "cd"[w.rng.IntN(2)], part, y, mon)
	if m < ym(2012, 1) {
		dir = strings.Replace(dir, "com/c/", "com/", 1)
		dir = strings.Replace(dir, "com/d/", "com/", 1)
	}
	if l.lang != "" {
		i := strings.LastIndexByte(name, '.')
		name = name[:i] + "-" + l.lang + name[i:]
	}
	name = strings.ReplaceAll(name, " ", "")
	one := func(name, patching string, share int64) *file {
		size := int64(t.minKB+w.rng.IntN(t.maxKB-t.minKB+1))*1024/share + int64(w.rng.IntN(1024))
		return &file{sha1: w.bytes(20), sha256: w.bytes(32), name: name, dir: dir, size: size, patching: patching,
			modified: l.created.AddDate(0, 0, -9).Truncate(time.Second)}
	}
	files := []*file{one(name, "SelfContained", 1)}
	base := strings.TrimSuffix(name, ".cab")
	switch t.handler {
	case "CbsExpress":
		files = append(files, one(base+"-express.cab", "Express", 40), one(base+".psf", "Express", 1))
	case "WindowsInstaller":
		if t.langs == 0 && w.chance(0.2) { // the delta of a full file
			files = append(files, one(base+"-delta.cab", "Express", 20))
		}
	case "OSInstaller":
		files = append(files, one("Wsus.AggregatedMetadata.cab", "Metadata", 500), one("DesktopDeployment.cab", "ServicingStack", 100),
			one(fmt.Sprintf("SSU-26100.%d-x64.cab", 1000+m), "SelfContained", 50), one(base+".psf", "SelfContained", 1),
			one(base+".wim", "SelfContained", 2), one(base+"-baseless.psf", "SelfContained", 3))
	}
	return files
}
