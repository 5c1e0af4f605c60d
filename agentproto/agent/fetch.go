package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"wuamesh/agentproto"
)

// A wait is a file that could not be had, and when to ask for it again.
type wait struct {
	until time.Time
	tries int  // in a row
	away  bool // the node has not got it yet
}

// room is what must stay free on the disk beyond a file's double size: the
// file is here once and once in Windows' own cache, and servicing unpacks it.
const room = 2 << 30

// doingDownload is what the agent was at when a download failed.
const doingDownload = "download"

// errNoRoom is a disk that is too full.
var errNoRoom = errors.New("not enough free space on the disk")

// runFetch downloads what is wanted: the scan cab first, because everything
// else rests on it.
func (a *Agent) runFetch(ctx context.Context) error {
	for ctx.Err() == nil {
		a.obeyFetch(ctx)
		if _, err := a.download(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errNotEnrolled) && !errors.Is(err, errDisabled) {
			a.log.WarnContext(ctx, "download", "err", err)
		}
		a.fetch.wait(ctx, a.untilRetry())
	}
	return ctx.Err()
}

// untilRetry is how long until a file that could not be had is asked for
// again; long when there is none, since whatever changes that kicks.
func (a *Agent) untilRetry() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := time.Hour
	for _, w := range a.waits {
		d = min(d, time.Until(w.until))
	}
	return max(d, time.Second)
}

// download is one pass: the scan cab if the node has another one, then every
// file of every wanted update that is not here. It returns a sentence.
func (a *Agent) download(ctx context.Context) (string, error) {
	if err := a.fetch.take(ctx); err != nil {
		return "", err
	}
	defer a.fetch.give()
	defer a.say("fetch", "")
	if !a.manages() {
		return "", errDisabled
	}
	if _, _, err := a.node(); err != nil {
		return "", err
	}
	cabErr := a.fetchCab(ctx)
	got, left, err := a.fetchFiles(ctx)
	a.warn("fetch", errors.Join(cabErr, err))
	full := errors.Is(errors.Join(cabErr, err), errNoRoom)
	a.noRoom(full)
	if full {
		a.failed(ctx, doingDownload, errors.Join(cabErr, err))
	}
	a.clean(ctx)
	if got > 0 {
		a.contact.now() // statuses changed
		a.windows.now()
	}
	if err = errors.Join(cabErr, err); err != nil {
		return "", err
	}
	switch {
	case left > 0:
		return fmt.Sprintf("Downloaded %s; %s not to be had yet and will be asked for again.", count(got, "file"), count(left, "file")), nil
	case got > 0:
		return fmt.Sprintf("Downloaded %s.", count(got, "file")), nil
	}
	return "Nothing to download.", nil
}

// fetchCab downloads the scan cab when the node's digest is not ours.
func (a *Agent) fetchCab(ctx context.Context) error {
	a.mu.Lock()
	ref, held := a.st.WantCab, a.st.Cab
	a.mu.Unlock()
	if ref == nil || ref.SHA256 == held || !a.mayAsk(cabName(ref.SHA256)) {
		return nil
	}
	w := wanted{name: cabName(ref.SHA256), size: ref.Size, sha256: ref.SHA256}
	if !a.cabs.holds(w) {
		a.say("fetch", "downloading "+agentproto.ScanCabName)
		began := time.Now()
		if err := a.roomFor(ctx, w); err != nil {
			return err
		}
		if err := a.fetchFromNode(ctx, a.cabs, w, agentproto.ScanCabName); err != nil {
			return a.put(ctx, w.name, err)
		}
		a.log.InfoContext(ctx, "scan cab downloaded", "digest", ref.SHA256, "bytes", ref.Size, "took", time.Since(began))
	}
	a.got(w.name)
	if err := a.change(func(s *state) { s.Cab = ref.SHA256 }); err != nil {
		return err
	}
	a.windows.now()
	return nil
}

// cabName is the scan cab's name here. It has the digest in it, so that a new
// one never takes the place of one that Windows is reading.
func cabName(digest string) string { return "wsusscn2-" + digest[:min(16, len(digest))] + ".cab" }

// fetchFiles downloads what wanted updates need, the most urgent update
// first. A file that cannot be had does not hold up the others; a full disk
// and a context that ended do.
func (a *Agent) fetchFiles(ctx context.Context) (got, left int, err error) {
	list := slices.DeleteFunc(a.choices(), func(c choice) bool { return !c.wanted() || c.cached() })
	inOrder(list)
	policy, _ := a.policy()
	broken := 0
	for _, c := range list {
		whole := true
		for _, f := range c.files() {
			w := want(f)
			switch {
			case a.files.holds(w):
				continue
			case !a.mayAsk(w.name):
				left++
				whole = false
				continue
			}
			a.say("fetch", "downloading "+c.Update.Title)
			if err := a.roomFor(ctx, w); err != nil {
				return got, left, err
			}
			if err := a.fetchFile(ctx, w, f.URL, policy.Settings.DirectDownload); err != nil {
				if ended := a.put(ctx, w.name, err); ended != nil {
					return got, left, ended
				}
				if broken = nobodyAnswered(broken, err); broken > 1 {
					return got, left, err // the line is cut: the other files would only say so again
				}
				left++
				whole = false
				continue
			}
			broken = 0
			a.got(w.name)
			got++
		}
		if whole {
			a.reportSoon()
		}
	}
	return got, left, nil
}

// nobodyAnswered counts failures in a row that are of the line, not of a file.
func nobodyAnswered(n int, err error) int {
	if p := (*agentproto.Problem)(nil); errors.As(err, &p) || errors.Is(err, errBad) {
		return 0
	}
	return n + 1
}

// directPause is how long Microsoft is asked after the node, once it could not
// be reached: a firewall that drops without a word costs 15 s a file.
const directPause = 10 * time.Minute

// fetchFile downloads one file: from Microsoft when the host may, else or when
// that fails from the node; the other way round while Microsoft is not reached.
func (a *Agent) fetchFile(ctx context.Context, w wanted, from string, direct bool) error {
	if !direct {
		return a.fetchFromNode(ctx, a.files, w, w.name)
	}
	microsoft := func() error {
		err := a.files.fetch(ctx, w, a.fromMicrosoft(from))
		if err == nil || ctx.Err() != nil {
			return err
		}
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			a.mu.Lock()
			a.noMicrosoft = time.Now().Add(directPause)
			a.mu.Unlock()
		}
		return fmt.Errorf("directly: %w", err)
	}
	node := func() error { return a.fetchFromNode(ctx, a.files, w, w.name) }
	a.mu.Lock()
	ways := []func() error{microsoft, node}
	if time.Now().Before(a.noMicrosoft) {
		slices.Reverse(ways)
	}
	a.mu.Unlock()
	first := ways[0]()
	if first == nil || ctx.Err() != nil {
		return first
	}
	if err := ways[1](); err != nil {
		return errors.Join(err, first)
	}
	return nil
}

// resumes is how often a broken download goes on at once, as long as each try
// brought something or its node fell silent, and resumeWithin how long it waits
// at most: a branch whose node died must not come to the next all at once.
const (
	resumes      = 3
	resumeWithin = time.Second
)

// fetchFromNode downloads the file of that name from the nearest node that has
// it as it should be. When the line breaks in the middle, the next node, or the same
// one, goes on with the next byte at once: a node that died is one that others
// stand in for.
func (a *Agent) fetchFromNode(ctx context.Context, to files, w wanted, name string) error {
	node, _, err := a.node()
	if err != nil {
		return err
	}
	bad, broken := 0, 0
	for {
		before := to.begun(w)
		err = to.fetch(ctx, w, a.fromNode(name))
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.Is(err, errBad):
			a.log.WarnContext(ctx, "download thrown away", "path", w.name, "node", node.Nodes()[0], "err", err)
			askAnother(node, a.log)
			if bad++; bad >= len(node.Nodes()) {
				return err
			}
		case (to.begun(w) > before || errors.Is(err, agentproto.ErrSilent)) && broken < resumes:
			broken++
			a.say("fetch", fmt.Sprintf("downloading %s, from byte %d on as the line broke", w.name, to.begun(w)))
			a.log.InfoContext(ctx, "download interrupted, going on", "path", w.name, "bytes", to.begun(w), "err", err)
			select {
			case <-time.After(time.Duration(a.share() * float64(resumeWithin))):
			case <-ctx.Done():
			}
		default:
			return err
		}
	}
}

func (a *Agent) fromNode(name string) source {
	return func(ctx context.Context, offset int64, etag string) (agentproto.Content, error) {
		node, _, err := a.node()
		if err != nil {
			return agentproto.Content{}, err
		}
		return node.Fetch(ctx, name, offset, etag)
	}
}

// fromMicrosoft asks the URL that Windows' own scan named. The scan cab is
// signed, but a file is asked for over plain http: only hosts of Microsoft's
// are asked, and the digest decides.
func (a *Agent) fromMicrosoft(raw string) source {
	return func(ctx context.Context, offset int64, etag string) (agentproto.Content, error) {
		u, err := url.Parse(raw)
		if err != nil || !microsofts(u.Hostname()) {
			return agentproto.Content{}, fmt.Errorf("%q is not on a host of Microsoft's", clip(raw))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
		if err != nil {
			return agentproto.Content{}, err
		}
		if offset > 0 && etag != "" {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
			req.Header.Set("If-Range", etag)
		}
		resp, err := a.microsoft.Do(req)
		if err != nil {
			return agentproto.Content{}, err
		}
		c := agentproto.Content{Body: resp.Body, Size: resp.ContentLength, ETag: resp.Header.Get("ETag")}
		switch resp.StatusCode {
		case http.StatusOK:
			return c, nil
		case http.StatusPartialContent:
			c.Offset = offset
			c.Size += offset
			return c, nil
		}
		resp.Body.Close()
		return agentproto.Content{}, fmt.Errorf("%s answered %s", u.Host, resp.Status)
	}
}

// microsofts says whether a host is one from which Microsoft serves updates
// (Windows Update troubleshooting, "Device cannot access update files").
func microsofts(host string) bool {
	host = strings.ToLower(host)
	for _, domain := range []string{"windowsupdate.com", "update.microsoft.com", "delivery.mp.microsoft.com", "download.microsoft.com"} {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			return true
		}
	}
	return false
}

// directClient is for direct_download; without a transport it goes through
// the proxy of the host's environment.
func directClient(t http.RoundTripper) *http.Client {
	if t == nil {
		t = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute,
		}
	}
	return &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > 5 || !microsofts(req.URL.Hostname()) {
			return fmt.Errorf("sent on to %q, which is no host of Microsoft's", clip(req.URL.Hostname()))
		}
		return nil
	}}
}

// roomFor says whether a file fits, and in Windows' cache once more.
func (a *Agent) roomFor(ctx context.Context, w wanted) error {
	free, err := a.machine.FreeSpace(ctx, a.dir)
	if err != nil {
		a.log.DebugContext(ctx, "free space unknown", "err", err)
		return nil // a full disk will say so itself
	}
	if free < 2*w.size+room {
		return fmt.Errorf("%w: %d MB are free, %d MB are needed to download and install %s", errNoRoom, free>>20, (2*w.size+room)>>20, w.name)
	}
	return nil
}

// noRoom tells the mesh at once when the disk becomes too full, and when it is
// not any more: until the next check-in nobody would know why nothing comes.
func (a *Agent) noRoom(full bool) {
	a.mu.Lock()
	changed := full != a.full
	a.full = full
	a.mu.Unlock()
	if changed {
		a.hurryUp()
	}
}

// mayAsk says whether a file that could not be had may be asked for again.
func (a *Agent) mayAsk(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !time.Now().Before(a.waits[name].until)
}

func (a *Agent) got(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waits, name)
}

// forgive forgets why files could not be had.
func (a *Agent) forgive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.waits)
}

// put notes that a file could not be had and when to ask again. It returns
// an error that ends the pass.
func (a *Agent) put(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !notThereYet(err) {
		a.failed(ctx, doingDownload, err)
	}
	share := a.share()
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.waits[name]
	w.tries++
	w.until = time.Now().Add(backoff(w.tries, 30*time.Second, 2*time.Hour, share))
	away, problem := (*agentproto.AwayError)(nil), (*agentproto.Problem)(nil)
	switch {
	case errors.Is(err, errBad):
		a.log.WarnContext(ctx, "no node has it as it should be", "path", name, "tries", w.tries, "err", err)
	case errors.As(err, &away):
		w.away = true
		w.until = time.Now().Add(max(away.After, time.Second))
		a.log.DebugContext(ctx, "file not on the node yet", "path", name, "again", away.After)
	case errors.As(err, &problem) && problem.Status == http.StatusNotFound:
		w.away = true
		a.log.DebugContext(ctx, "file not on the node", "path", name)
	default:
		a.log.WarnContext(ctx, "download interrupted", "path", name, "tries", w.tries, "err", err)
	}
	a.waits[name] = w
	return nil
}

// notThereYet says whether the node is right to have no such file now.
func notThereYet(err error) bool {
	away, problem := (*agentproto.AwayError)(nil), (*agentproto.Problem)(nil)
	return !errors.Is(err, errBad) && (errors.As(err, &away) || errors.As(err, &problem) && problem.Status == http.StatusNotFound)
}

// askAnother puts the node that is asked first at the end, until the next
// check-in puts them in order: what it serves is not what it should be.
func askAnother(node Node, log *slog.Logger) {
	if nodes := node.Nodes(); len(nodes) > 1 {
		if err := node.SetNodes(append(nodes[1:], nodes[0])); err != nil {
			log.Warn("nodes", "err", err)
		}
	}
}

// clean removes the downloads that no wanted update needs: of what is
// installed, forbidden, replaced, or in Windows' own cache.
func (a *Agent) clean(ctx context.Context) {
	a.mu.Lock()
	never := a.scan.Started.IsZero()
	a.mu.Unlock()
	if never {
		return // a lost scan says nothing about the downloads
	}
	keep := map[string]bool{}
	for _, c := range a.choices() {
		if c.wanted() && !c.cached() {
			for _, f := range c.files() {
				keep[f.Name] = true
			}
		}
	}
	a.mu.Lock()
	cabs := map[string]bool{}
	if a.st.Cab != "" {
		cabs[cabName(a.st.Cab)] = true
	}
	if a.st.WantCab != nil {
		cabs[cabName(a.st.WantCab.SHA256)] = true
	}
	for name := range a.waits {
		if !keep[name] && !cabs[name] {
			delete(a.waits, name)
		}
	}
	a.mu.Unlock()
	freed, err := a.files.keepOnly(keep)
	freedCab, errCab := a.cabs.keepOnly(cabs)
	if freed+freedCab > 0 {
		a.log.InfoContext(ctx, "downloads cleaned", "bytes", freed+freedCab)
	}
	if err = errors.Join(err, errCab); err != nil {
		a.log.WarnContext(ctx, "clean the downloads", "err", err)
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
