package appliance

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
	"wuamesh/appliance/microsoft"
	msft "wuamesh/appliance/microsoft/catalogue"
)

// What hosts and the scan cab say of one revision of an update, put together.
// The cab wins on what files are: their digests, sizes and URLs. Hosts win on
// which of them they need, and on what rules look at, because agents decide by
// that too. What a host leaves out the cab fills in; where the two contradict
// each other the update shows it.

// A revisionKey names one revision; number -1 is the newest.
type revisionKey struct {
	id     rules.UpdateID
	number int
}

// find is an update as the scan cab has it, nil when it does not, or not that
// revision of it.
func (p *published) find(key revisionKey) (*msft.Catalogue, *msft.Update) {
	c := p.now.Load()
	if c == nil {
		return nil, nil
	}
	id, err := msft.ParseGUID(string(key.id))
	if err != nil {
		return nil, nil
	}
	var u *msft.Update
	if key.number < 0 {
		u, err = c.Update(id)
	} else if u, err = c.Exactly(id, uint32(key.number)); err == nil && u.Number != uint32(key.number) {
		return nil, nil
	}
	if err != nil {
		p.damaged(err)
		return nil, nil
	}
	return c, u
}

// damaged tells of a file that cannot be read any more; what is asked of it
// counts as not there.
func (p *published) damaged(err error) {
	if !errors.Is(err, msft.ErrNotFound) {
		p.log.Error("the catalogue of the scan cab cannot be read", "err", err)
	}
}

// merge adds what the scan cab says to what hosts said.
func (p *published) merge(r updateRecord) updateRecord {
	c, u := p.find(revisionKey{r.ID, r.Revision})
	if u == nil {
		return r
	}
	files, err := c.Files(u)
	if err != nil {
		p.damaged(err)
		return r
	}
	said := p.describe(c, u)
	if len(r.CVEs) == 0 {
		r.CVEs = said.CVEs
	}
	if len(r.Bulletins) == 0 {
		r.Bulletins = said.Bulletins
	}
	if len(r.Supersedes) == 0 {
		r.Supersedes = said.Supersedes
	}
	if r.Description == "" {
		r.Description = said.Description
	}
	if r.SupportURL == "" {
		r.SupportURL = said.SupportURL
	}
	var against []string
	r.Files, against = mergeFiles(r.Files, files)
	for _, what := range against {
		r.Problems = append(r.Problems[:len(r.Problems):len(r.Problems)], fmt.Sprintf("Host %s %s", r.From, what))
	}
	return r
}

// contradicted says that a host described the update otherwise than the scan
// cab does. The lock is held.
func (c *catalogue) contradicted(id rules.UpdateID) bool {
	u := c.updates[id]
	if u == nil {
		return false
	}
	for n, r := range u.revisions {
		if len(r.Problems) > len(u.reported[n].Problems) {
			return true
		}
	}
	return false
}

// mergeFiles are the files that hosts named, as the scan cab describes them.
// Against is where it contradicts, to be said of the host.
func mergeFiles(host []agentproto.File, cab []msft.PartFile) (list []agentproto.File, against []string) {
	for _, f := range host {
		i := slices.IndexFunc(cab, func(g msft.PartFile) bool {
			return hex.EncodeToString(g.SHA1[:]) == f.SHA1 || fileName(g.File) == f.Name
		})
		if i < 0 {
			if len(cab) > 0 {
				against = append(against, fmt.Sprintf("needs the file %s, which the scan cab does not have for this update.", f.Name))
			}
			list = append(list, f)
			continue
		}
		g := fileOf(cab[i].File)
		for _, d := range []struct{ what, theirs, ours string }{{"SHA-1", f.SHA1, g.SHA1}, {"SHA-256", f.SHA256, g.SHA256}} {
			if d.theirs != "" && d.ours != "" && d.theirs != d.ours {
				against = append(against, fmt.Sprintf("says that the %s of %s is %s. The scan cab says %s, which holds.", d.what, f.Name, d.theirs, d.ours))
			}
		}
		if f.Size > 0 && g.Size > 0 && f.Size != g.Size {
			against = append(against, fmt.Sprintf("says that %s has %d bytes. The scan cab says %d, which holds.", f.Name, f.Size, g.Size))
		}
		list = append(list, agentproto.File{
			Name: f.Name, URL: cmp.Or(g.URL, f.URL), Size: cmp.Or(g.Size, f.Size), SHA1: g.SHA1, SHA256: cmp.Or(g.SHA256, f.SHA256), Delta: f.Delta || g.Delta,
		})
	}
	return list, against
}

// fileName is what the folder calls a file: the end of its URL.
func fileName(f msft.File) string {
	if name, _, err := microsoft.NameFromURL(f.URL); err == nil {
		return name
	}
	return strings.ToLower(f.Name)
}

// fileOf is a file of the scan cab as hosts describe theirs.
func fileOf(f msft.File) agentproto.File {
	return agentproto.File{
		Name: fileName(f), URL: f.URL, Size: f.Size, SHA1: hex.EncodeToString(f.SHA1[:]), SHA256: hex.EncodeToString(f.SHA256), Delta: f.Delta(),
	}
}

// restartWords are Microsoft's words for what an update needs afterwards.
var restartWords = map[string]RestartNeed{"NeverReboots": RestartNever, "AlwaysRequiresReboot": RestartAlways, "CanRequestReboot": RestartMaybe}

// word is Microsoft's for a need, none for one that nobody says.
func (n RestartNeed) word() string {
	for word, need := range restartWords {
		if need == n {
			return word
		}
	}
	if n == RestartUnknown {
		return ""
	}
	return string(n) // nobody's: it finds nothing
}

// restartOf is what an update of the scan cab needs, as its newest revision and
// the parts of it say.
func restartOf(c *msft.Catalogue, u *msft.Update) RestartNeed {
	if row, ok := c.Row(u.ID); ok && row.Revision == u.Revision {
		return restartWords[row.Restart]
	}
	return restartWords[u.Restart]
}

// describe is a revision of the scan cab as hosts describe theirs, without its
// files: which of them a host needs only the host knows.
func (p *published) describe(c *msft.Catalogue, u *msft.Update) updateRecord {
	severity, err := rules.ParseSeverity(u.Severity)
	if err != nil {
		severity = rules.Unspecified
	}
	r := updateRecord{Update: agentproto.Update{
		ID: rules.UpdateID(u.ID.String()), Revision: int(u.Number), Title: u.Title, Description: u.Description, KBs: u.KBs, Severity: severity,
		Published: u.Created, CVEs: u.CVEs, Restart: string(restartOf(c, u)), SupportURL: u.SupportURL,
	}}
	category := func(id msft.GUID) agentproto.Category {
		return agentproto.Category{ID: rules.CategoryID(id.String()), Title: c.Title(id)}
	}
	if !u.Classification.IsZero() {
		r.Classification = category(u.Classification)
	}
	for _, id := range u.Products {
		r.Products = append(r.Products, category(id))
	}
	if u.Bulletin != "" {
		r.Bulletins = []string{u.Bulletin}
	}
	for _, id := range u.Supersedes {
		r.Supersedes = append(r.Supersedes, rules.UpdateID(id.String()))
	}
	return r
}

// maxRemembered bounds how many descriptions are kept besides those of updates
// that hosts described.
const maxRemembered = 2000

// record describes an update that no host described, or says that the scan
// cab does not have it either.
func (p *published) record(key revisionKey) (updateRecord, bool) {
	before := p.now.Load()
	p.mu.Lock()
	r, ok := p.records[key]
	p.mu.Unlock()
	if ok {
		return r, r.Title != ""
	}
	if c, u := p.find(key); u != nil {
		r = p.describe(c, u)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.records) >= maxRemembered {
		clear(p.records)
	}
	if p.now.Load() == before { // else it may be of the one that was replaced
		p.records[key] = r
	}
	return r, r.Title != ""
}

// superseded says that the scan cab has an update that replaces this one.
func (p *published) superseded(id rules.UpdateID) bool {
	c := p.now.Load()
	return c != nil && c.Superseded(guidOf(id))
}

// ofKB are the updates that a KB stands for.
func (p *published) ofKB(kb string) (ids []rules.UpdateID) {
	c := p.now.Load()
	if c == nil {
		return nil
	}
	res, err := c.Search(msft.Query{Keys: []string{"kb" + kb}, Sort: msft.ByNothing, Limit: 200})
	if err != nil {
		p.damaged(err)
		return nil
	}
	for _, r := range res.Rows {
		ids = append(ids, rules.UpdateID(r.ID.String()))
	}
	return ids
}

// files are all files of an update, for every language, whether or not a host
// needs it.
func (p *published) files(id rules.UpdateID) []agentproto.File {
	c, u := p.find(revisionKey{id, -1})
	if u == nil {
		return nil
	}
	files, err := c.Files(u)
	if err != nil {
		p.damaged(err)
		return nil
	}
	list := make([]agentproto.File, 0, len(files))
	for _, f := range files {
		list = append(list, fileOf(f.File))
	}
	return list
}

// file is the file of that name as the scan cab describes it, whoever needs
// it: Microsoft's names have the digest in them.
func (p *published) file(name string) (wantedFile, bool) {
	_, sum, err := microsoft.NameFromURL(name)
	c := p.now.Load()
	if err != nil || len(sum) != 20 || c == nil {
		return wantedFile{}, false
	}
	f, owners, err := c.File([20]byte(sum))
	if err != nil {
		p.damaged(err)
		return wantedFile{}, false
	}
	w := wantedFile{File: fileOf(f)}
	w.Name = name
	for _, id := range owners {
		if r, ok := p.record(revisionKey{rules.UpdateID(id.String()), -1}); ok {
			w.title = r.Title
			break
		}
	}
	return w, true
}

// nameBySHA1 is Microsoft's name of the file with that SHA-1, "" when the scan
// cab has none.
func (p *published) nameBySHA1(sum [20]byte) string {
	c := p.now.Load()
	if c == nil {
		return ""
	}
	f, _, err := c.File(sum)
	if err != nil {
		p.damaged(err)
		return ""
	}
	name, _, err := microsoft.NameFromURL(f.URL)
	if err != nil {
		return ""
	}
	return name
}

// title is the English title of a product or classification, "" when the scan
// cab has none.
func (p *published) title(id rules.CategoryID) string {
	c := p.now.Load()
	if c == nil {
		return ""
	}
	guid, err := msft.ParseGUID(string(id))
	if err != nil {
		return ""
	}
	return c.Title(guid)
}

// mergeAnew puts the catalogue of another scan cab beside what hosts said, some
// updates at a time so that nobody waits long.
func (c *catalogue) mergeAnew(log *slog.Logger) {
	const step = 50
	began := time.Now()
	c.mu.RLock()
	ids := make([]rules.UpdateID, 0, len(c.updates))
	for id := range c.updates {
		ids = append(ids, id)
	}
	c.mu.RUnlock()
	for chunk := range slices.Chunk(ids, step) {
		c.mu.Lock()
		for _, id := range chunk {
			if u := c.updates[id]; u != nil {
				for n, r := range u.reported {
					u.revisions[n] = c.published.merge(r)
				}
			}
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch()
	c.forgetPolicies()
	c.byFile = nil
	c.blockFiles()
	log.Debug("reported updates merged with the scan cab's", "updates", len(ids), "took", time.Since(began))
}
