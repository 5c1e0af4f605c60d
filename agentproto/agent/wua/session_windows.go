package wua

import (
	"context"
	"errors"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"wuamesh/agentproto"
	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/rules"
)

const (
	selectOthers    = 3                      // ssOthers of ServerSelection: the service we name, and no server
	scanService     = "wuamesh offline scan" // the name the scan cab is registered under
	usualCriteria   = "IsInstalled=0 and Type='Software' or IsInstalled=1 and Type='Software'"
	impactExclusive = 2 // iiRequiresExclusiveHandling of InstallationImpact

	codeUnknownService = 0x80248014 // WU_E_DS_UNKNOWNSERVICE
	codeInvalidArg     = 0x80070057 // E_INVALIDARG
	codeNotAllowed     = 0x80240016 // WU_E_INSTALL_NOT_ALLOWED
	codeUnexpected     = 0x80240FFF // WU_E_UNEXPECTED
)

// A session is one scan cab registered with Windows. It owns every object it
// got from there; they live and end on the apartment's thread.
type session struct {
	h      *Host
	query  agent.Query
	closed atomic.Bool

	manager, service, session object
	id                        string // of the registered scan cab
	found                     map[agentproto.UpdateRef]*part
}

// A part is an update, or one that is bundled in it: of most updates of
// Windows only the bundled ones have files.
type part struct {
	o     object
	files []agentproto.File
	parts []*part
}

func (p *part) release() {
	for _, q := range p.parts {
		q.release()
	}
	p.o.release()
}

// open registers the scan cab. Flags of 0 let the registration go with the
// objects, so a killed agent leaves none in a Windows that is as documented;
// what others left is removed first.
func (s *session) open() (err error) {
	if s.manager, err = create("Microsoft.Update.ServiceManager"); err != nil {
		return err
	}
	if err := s.removeLeftovers(); err != nil {
		return err
	}
	if s.service, err = s.manager.call("AddScanPackageService", scanService, s.query.Cab, 0); err != nil {
		return err
	}
	r := reader{o: s.service}
	if s.id = r.text("ServiceID"); r.err != nil {
		return r.err
	}
	if s.session, err = create("Microsoft.Update.Session"); err != nil {
		return err
	}
	return s.session.put("ClientApplicationID", "wuamesh")
}

func (s *session) removeLeftovers() error {
	r := reader{o: s.manager}
	var ids []string
	r.eachObject("Services", func(o object) error {
		in := reader{o: o}
		if in.text("Name") == scanService {
			ids = append(ids, in.text("ServiceID"))
		}
		return in.err
	})
	for _, id := range ids {
		if r.err == nil {
			r.err = s.manager.do("RemoveService", id)
		}
	}
	return r.err
}

// Close implements [agent.Session]. Everything found is released before the
// scan cab is unregistered: what belongs to a service that is gone may crash
// when it is touched.
func (s *session) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	defer func() { s.h.free <- struct{}{} }()
	return s.h.com.do(context.Background(), func() error {
		s.forget()
		s.session.release()
		var err error
		if s.id != "" {
			err = s.manager.do("RemoveService", s.id)
		}
		s.service.release()
		s.manager.release()
		return err
	})
}

func (s *session) forget() {
	for _, p := range s.found {
		p.release()
	}
	s.found = nil
}

// do runs f on the thread, unless the session is closed.
func (s *session) do(ctx context.Context, call string, f func() error) error {
	return s.h.com.do(ctx, func() error {
		if s.closed.Load() {
			return fail(call, codeUnknownService)
		}
		return f()
	})
}

// Search implements [agent.Session]. It names the registered cab as the only
// service to ask; without that Windows would go to the Internet or to a WSUS.
func (s *session) Search(ctx context.Context) (list []agent.Found, err error) {
	err = s.do(ctx, "Search", func() error {
		s.forget()
		searcher, err := s.session.call("CreateUpdateSearcher")
		if err != nil {
			return err
		}
		defer searcher.release()
		err = errors.Join(
			searcher.put("ServerSelection", selectOthers),
			searcher.put("ServiceID", s.id),
			searcher.put("IncludePotentiallySupersededUpdates", s.query.Superseded),
		)
		if err != nil {
			return err
		}
		criteria := s.query.Criteria
		if criteria == "" {
			criteria = usualCriteria
		}
		result, err := searcher.call("Search", criteria)
		if err != nil {
			return err
		}
		defer result.release()
		s.found = map[agentproto.UpdateRef]*part{}
		r := reader{o: result}
		r.eachObject("Updates", func(o object) error {
			f, p, err := readUpdate(o)
			if err != nil {
				return err
			}
			if old := s.found[f.Ref()]; old != nil {
				old.release()
			}
			s.found[f.Ref()] = p
			list = append(list, f)
			return nil
		})
		return r.err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// readUpdate copies what Windows says of an update, and keeps a reference to
// it and to its parts.
func readUpdate(o object) (f agent.Found, p *part, err error) {
	r := reader{o: o}
	u := &f.Update
	u.ID, u.Revision, r.err = identity(o)
	u.Title = r.text("Title")
	r.optional(func() { u.Description = r.text("Description") })
	r.optional(func() { u.SupportURL = r.text("SupportUrl") })
	r.optional(func() { u.Severity = rules.Severity(r.text("MsrcSeverity")) })
	r.optional(func() { u.KBs = r.texts("KBArticleIDs") })
	r.optional(func() { u.Bulletins = r.texts("SecurityBulletinIDs") })
	r.optional(func() { u.CVEs = r.texts("CveIDs") }) // IUpdate2
	r.optional(func() {
		for _, id := range r.texts("SupersededUpdateIDs") {
			u.Supersedes = append(u.Supersedes, rules.UpdateID(strings.ToLower(id)))
		}
	})
	u.Published = r.date("LastDeploymentChangeTime")
	f.Installed = r.boolean("IsInstalled")
	r.optional(func() { f.OnHost = r.boolean("IsDownloaded") }) // some updates have an error for it
	r.optional(func() { f.Hidden = r.boolean("IsHidden") })
	r.optional(func() { f.Restart = r.boolean("RebootRequired") }) // IUpdate2
	r.eachObject("Categories", func(o object) error { return addCategory(u, o) })
	if r.err == nil {
		p, r.err = readPart(o, &f)
	}
	return f, p, r.err
}

// identity reads the UpdateID and the revision.
func identity(o object) (rules.UpdateID, int, error) {
	i, err := o.sub("Identity")
	if err != nil {
		return "", 0, err
	}
	defer i.release()
	r := reader{o: i}
	id, rev := r.text("UpdateID"), r.long("RevisionNumber")
	return rules.UpdateID(strings.ToLower(id)), int(rev), r.err
}

func addCategory(u *agentproto.Update, o object) error {
	r := reader{o: o}
	c := agentproto.Category{ID: rules.CategoryID(strings.ToLower(r.text("CategoryID"))), Title: r.text("Name")}
	switch r.text("Type") {
	case "UpdateClassification":
		u.Classification = c
	case "Product":
		u.Products = append(u.Products, c)
	}
	return r.err
}

// readPart adds to f what an update or a bundled one needs: files, licence,
// restart, a person.
func readPart(o object, f *agent.Found) (p *part, err error) {
	p = &part{o: o.again()}
	defer func() {
		if err != nil {
			p.release()
			p = nil
		}
	}()
	r := reader{o: o}
	r.eachObject("DownloadContents", func(o object) error {
		in := reader{o: o}
		file := agentproto.File{URL: in.text("DownloadUrl")}
		in.optional(func() { file.Delta = in.boolean("IsDeltaCompressedContent") }) // IUpdateDownloadContent2
		if file.Name = fileName(file.URL); file.Name != "" && in.err == nil {
			p.files = append(p.files, file)
			if !slices.ContainsFunc(f.Update.Files, func(g agentproto.File) bool { return strings.EqualFold(g.Name, file.Name) }) {
				f.Update.Files = append(f.Update.Files, file)
			}
		}
		return in.err
	})
	f.EULA = f.EULA || !r.boolean("EulaAccepted")
	if r.err == nil {
		r.err = addBehaviour(o, f)
	}
	r.eachObject("BundledUpdates", func(o object) error {
		q, err := readPart(o, f)
		if err == nil {
			p.parts = append(p.parts, q)
		}
		return err
	})
	return p, r.err
}

// fileName is the last segment of a URL: the name by which Windows knows the
// file.
func fileName(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if name := path.Base(u.Path); name != "." && name != "/" {
		return name
	}
	return ""
}

func addBehaviour(o object, f *agent.Found) error {
	b, err := o.sub("InstallationBehavior")
	if err != nil {
		return err
	}
	defer b.release()
	r := reader{o: b}
	restart := [...]string{"never", "always", "maybe"}
	if n := int(r.long("RebootBehavior")); n >= 0 && n < len(restart) && (f.Update.Restart == "" || f.Update.Restart == "never") {
		f.Update.Restart = restart[n]
	}
	f.Update.Exclusive = f.Update.Exclusive || r.long("Impact") == impactExclusive
	f.UserInput = f.UserInput || r.boolean("CanRequestUserInput")
	return r.err
}

// with runs f for an update that the last search found.
func (s *session) with(ctx context.Context, call string, ref agentproto.UpdateRef, f func(*part) error) error {
	return s.do(ctx, call, func() error {
		p, ok := s.found[ref]
		if !ok {
			return fail(call, codeInvalidArg)
		}
		return f(p)
	})
}

// AcceptEULA implements [agent.Session].
func (s *session) AcceptEULA(ctx context.Context, ref agentproto.UpdateRef) error {
	return s.with(ctx, "AcceptEula", ref, (*part).accept)
}

func (p *part) accept() error {
	if err := p.o.do("AcceptEula"); err != nil {
		return err
	}
	for _, q := range p.parts {
		if err := q.accept(); err != nil {
			return err
		}
	}
	return nil
}

// Hide implements [agent.Session].
func (s *session) Hide(ctx context.Context, ref agentproto.UpdateRef, hidden bool) error {
	return s.with(ctx, "IsHidden", ref, func(p *part) error { return p.o.put("IsHidden", hidden) })
}

// CopyToCache implements [agent.Session]. Each part is given its own files: a
// part refuses what is not of it. A part that has its files already may
// refuse them; then what counts is whether it has them.
func (s *session) CopyToCache(ctx context.Context, ref agentproto.UpdateRef, files []string) error {
	return s.with(ctx, "CopyToCache", ref, func(p *part) error {
		left := slices.Clone(files)
		if err := p.copy(files, &left); err != nil {
			return err
		}
		if len(left) > 0 {
			return fail("CopyToCache", codeInvalidArg) // of none of its parts
		}
		return nil
	})
}

// copy gives a part and its parts those of the files that are theirs, and
// takes them from left.
func (p *part) copy(files []string, left *[]string) error {
	mine := slices.DeleteFunc(slices.Clone(files), func(file string) bool { return !p.has(file) })
	*left = slices.DeleteFunc(*left, p.has)
	if len(mine) > 0 {
		if err := p.give(mine); err != nil {
			r := reader{o: p.o}
			if !r.boolean("IsDownloaded") || r.err != nil {
				return err
			}
		}
	}
	for _, q := range p.parts {
		if err := q.copy(files, left); err != nil {
			return err
		}
	}
	return nil
}

func (p *part) has(file string) bool {
	return filepath.IsAbs(file) && slices.ContainsFunc(p.files, func(f agentproto.File) bool { return strings.EqualFold(f.Name, filepath.Base(file)) })
}

func (p *part) give(files []string) error {
	list, err := create("Microsoft.Update.StringColl")
	if err != nil {
		return err
	}
	defer list.release()
	for _, f := range files {
		if err := list.do("Add", f); err != nil {
			return err
		}
	}
	return p.o.do("CopyToCache", list.d)
}

// Install implements [agent.Session].
func (s *session) Install(ctx context.Context, ref agentproto.UpdateRef) (out agent.Outcome, err error) {
	err = s.with(ctx, "Install", ref, func(p *part) error {
		list, err := create("Microsoft.Update.UpdateColl")
		if err != nil {
			return err
		}
		defer list.release()
		if err := list.do("Add", p.o.d); err != nil {
			return err
		}
		installer, err := s.session.call("CreateUpdateInstaller")
		if err != nil {
			return err
		}
		defer installer.release()
		r := reader{o: installer}
		if r.boolean("IsBusy") || r.err != nil {
			return cmpErr(r.err, fail("Install", codeNotAllowed))
		}
		if err := errors.Join(installer.put("Updates", list.d), installer.put("ForceQuiet", true)); err != nil {
			return err
		}
		result, err := installer.call("Install")
		if err != nil {
			return err
		}
		defer result.release()
		one, err := result.call("GetUpdateResult", 0)
		if err != nil {
			return err
		}
		defer one.release()
		out, err = outcome(one)
		return err
	})
	return out, err
}

// outcome reads an IUpdateInstallationResult. What was not even begun, or
// failed without saying why, has a code all the same.
func outcome(o object) (agent.Outcome, error) {
	const notStarted, failed = 0, 4 // OperationResultCode
	r := reader{o: o}
	code := r.long("ResultCode")
	out := agent.Outcome{HResult: uint32(r.long("HResult")), Restart: r.boolean("RebootRequired")}
	switch {
	case code == notStarted && !out.Failed():
		out.HResult = codeNotAllowed
	case code >= failed && !out.Failed():
		out.HResult = codeUnexpected
	}
	return out, r.err
}

// cmpErr is the first error that is one.
func cmpErr(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}
