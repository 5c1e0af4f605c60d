package ui

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"

	"wuamesh/appliance"
)

// A reply is what a handler answers: a page, or the next place to go.
type reply struct {
	status int
	page   templ.Component
	next   string
	toast  string // said on the next page
	undo   undo   // offered beside it
	// file is the name of a file to save, with that text, instead of a page.
	file, text string
	// refresh asks for the page again in a second, also without scripts.
	refresh bool
	cookie  *http.Cookie
	table   *table // instead of a page
}

func show(c templ.Component) reply  { return reply{status: http.StatusOK, page: c} }
func again(c templ.Component) reply { return reply{status: http.StatusUnprocessableEntity, page: c} }
func goTo(path string) reply        { return reply{status: http.StatusSeeOther, next: path} }

// saying adds what the next page says about what was done.
func (r reply) saying(format string, args ...any) reply {
	r.toast = fmt.Sprintf(format, args...)
	return r
}

// An undo is the form that takes back what was done: where it goes, and which
// edit it is about.
type undo struct{ action, of string }

// toasted is what a cookie carries to the next page.
func (r reply) toasted() string {
	return strings.Join([]string{r.toast, r.undo.action, r.undo.of}, "\x00")
}

// A frame is what every page shows around its content, and what its forms
// carry. It travels in the context, so that components need no parameter.
type frame struct {
	who    appliance.Actor
	csrf   string
	theme  string
	keys   string // "off": those of one letter do nothing
	toast  string
	undo   undo
	node   string
	path   string
	to     string // where to go on at another node: this page there
	counts appliance.Counts
	stand  appliance.Standing
	nodes  []appliance.NodeRow // of the mesh
}

// above are the lists above pages, by how paths begin, the widest first.
var above = []struct{ under, href, label string }{
	{"/updates/", "/updates", "Windows Updates"}, {"/rules/", "/rules", "WUA Rules"},
	{"/hosts/", "/hosts", "Hosts"}, {"/groups", "/hosts", "Hosts"}, {"/groups/", "/groups", "Groups"},
	{"/clean", "/downloads", "Downloads"},
	{"/mesh/", "/mesh", "Mesh"}, {repositoryPath + "/", repositoryPath, "Repository rules"},
	{profilesPath, "/agents", "Agents"}, {profilesPath + "/", profilesPath, "Settings profiles"},
}

type frameKey struct{}

func frameOf(ctx context.Context) frame {
	f, _ := ctx.Value(frameKey{}).(frame)
	return f
}

// actor is who makes the request.
func actor(r *http.Request) appliance.Actor { return frameOf(r.Context()).who }

const (
	sessionCookie = "__Host-wuamesh_" // and the node: cookies do not tell ports apart
	toastCookie   = "__Host-wm_toast"
	themeCookie   = "__Host-wm_theme"
	keysCookie    = "__Host-wm_keys"
	prefLife      = 365 * 24 * time.Hour
)

func cookie(name, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(life.Seconds())}
}

// sessionName is what this node's session cookie is called.
func (u *UI) sessionName() string { return sessionCookie + u.node.ID()[:8] }

// session is the secret of the session that the browser shows.
func (u *UI) session(r *http.Request) string { return value(r, u.sessionName()) }

func value(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil {
		return ""
	}
	return c.Value
}

func address(r *http.Request) string {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return ap.Addr().Unmap().String()
	}
	return r.RemoteAddr
}

// maxForm bounds a form: the largest names some thousand updates.
const maxForm = 1 << 20

// page turns h into a handler for those who are logged in. Forms must carry
// the session's token.
func (u *UI) page(h func(*http.Request) (reply, error)) http.Handler {
	return u.loggedIn(func(w http.ResponseWriter, r *http.Request) (reply, error) {
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if err := r.ParseForm(); err != nil {
				return reply{}, &appliance.Problem{Kind: appliance.Invalid, Msg: "The form cannot be read.", Hint: "Go back and send it again.", Err: err}
			}
			if err := ours(r, r.PostForm.Get("csrf")); err != nil {
				return reply{}, err
			}
		}
		return h(r)
	})
}

// ours is nil for a form's token that is the session's.
func ours(r *http.Request, csrf string) error {
	if subtle.ConstantTimeCompare([]byte(csrf), []byte(frameOf(r.Context()).csrf)) == 1 {
		return nil
	}
	return &appliance.Problem{Kind: appliance.Denied, Msg: "This form is from another session.", Hint: "Go back, reload the page, and send it again."}
}

// A sentFile is a file of a form as it comes.
type sentFile struct {
	io.Reader
	name string
}

// filePage is page for a form that has the session's token and then one file,
// which h reads as it comes: it may be larger than memory.
func (u *UI) filePage(h func(*http.Request, sentFile) (reply, error)) http.Handler {
	return u.loggedIn(func(_ http.ResponseWriter, r *http.Request) (reply, error) {
		unread := func(err error) error {
			return &appliance.Problem{Kind: appliance.Invalid, Msg: "The form cannot be read.", Hint: "Go back and send it again.", Err: err}
		}
		parts, err := r.MultipartReader()
		if err != nil {
			return reply{}, unread(err)
		}
		token, err := parts.NextPart()
		if err != nil || token.FormName() != "csrf" {
			return reply{}, unread(err)
		}
		csrf, err := io.ReadAll(io.LimitReader(token, 200))
		if err != nil {
			return reply{}, unread(err)
		}
		if err := ours(r, string(csrf)); err != nil {
			return reply{}, err
		}
		file, err := parts.NextPart()
		if err != nil || file.FormName() != "file" {
			return reply{}, unread(err)
		}
		return h(r, sentFile{file, file.FileName()})
	})
}

// loggedIn turns h into a handler for those who are logged in.
func (u *UI) loggedIn(h func(http.ResponseWriter, *http.Request) (reply, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		if u.node.NeedsSetup() {
			u.write(w, u.stranger(r), notSetUp(), began)
			return
		}
		who, csrf, err := u.node.Session(r.Context(), u.session(r), address(r))
		if err != nil {
			u.write(w, r, goTo("/login?next="+url.QueryEscape(r.URL.RequestURI())), began)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), frameKey{}, u.frame(r, who, csrf)))
		rep, err := h(w, r)
		if err != nil {
			rep = u.sorry(r, err)
		}
		if value(r, toastCookie) != "" && rep.next == "" {
			http.SetCookie(w, cookie(toastCookie, "", -time.Second))
		}
		u.write(w, r, rep, began)
	})
}

// stranger is the request of somebody who is not logged in.
func (u *UI) stranger(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), frameKey{}, frame{theme: value(r, themeCookie), node: u.node.NodeName()}))
}

// open turns h into a handler for everybody.
func (u *UI) open(h func(*http.Request) (reply, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		r = u.stranger(r)
		rep, err := h(r)
		if err != nil {
			rep = u.sorry(r, err)
		}
		u.write(w, r, rep, time.Now())
	})
}

func (u *UI) frame(r *http.Request, who appliance.Actor, csrf string) frame {
	f := frame{who: who, csrf: csrf, theme: value(r, themeCookie), keys: value(r, keysCookie), node: u.node.NodeName(), path: r.URL.Path}
	switch {
	case r.URL.Path == standingPath:
		f.to = local(r.FormValue("to"))
	case r.Method == http.MethodGet:
		f.to = r.URL.RequestURI()
	default: // what answers a form is nowhere else
		section, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		f.to = "/" + section
	}
	f.stand, f.nodes = u.node.Standing(r.Context())
	if b, err := base64.RawURLEncoding.DecodeString(value(r, toastCookie)); err == nil {
		f.toast, f.undo.action, _ = strings.Cut(string(b), "\x00")
		f.undo.action, f.undo.of, _ = strings.Cut(f.undo.action, "\x00")
	}
	f.counts = u.node.Counts(r.Context())
	return f
}

// write alone writes pages: whole, or none of it.
func (u *UI) write(w http.ResponseWriter, r *http.Request, rep reply, began time.Time) {
	if rep.cookie != nil {
		http.SetCookie(w, rep.cookie)
	}
	if rep.toast != "" {
		http.SetCookie(w, cookie(toastCookie, base64.RawURLEncoding.EncodeToString([]byte(rep.toasted())), time.Minute))
	}
	if rep.next != "" {
		http.Redirect(w, r, rep.next, rep.status)
		return
	}
	if rep.table != nil {
		err := u.writeTable(w, r, rep.table)
		if err == nil {
			return
		}
		rep = u.sorry(r, err)
	}
	if rep.file != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", rep.file))
		w.WriteHeader(rep.status)
		io.WriteString(w, rep.text)
		return
	}
	var buf bytes.Buffer
	if err := rep.page.Render(r.Context(), &buf); err != nil {
		u.log.ErrorContext(r.Context(), "page not rendered", "path", r.URL.Path, "err", err)
		http.Error(w, "This page could not be shown. The node's log has the details.", http.StatusInternalServerError)
		return
	}
	if rep.refresh {
		w.Header().Set("Refresh", "1")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Server-Timing", fmt.Sprintf("page;dur=%.1f", float64(time.Since(began).Microseconds())/1000))
	w.WriteHeader(rep.status)
	w.Write(buf.Bytes())
}

// sorry shows what an admin can act on, and apologises for the rest.
func (u *UI) sorry(r *http.Request, err error) reply {
	if p, ok := appliance.AsProblem(err); ok {
		return reply{status: p.Kind.Status(), page: problemPage(p)}
	}
	id := fmt.Sprintf("%x", time.Now().UnixMicro())
	u.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "id", id, "err", err)
	return reply{status: http.StatusInternalServerError, page: problemPage(&appliance.Problem{
		Msg: "Something went wrong on this node.", Hint: "It is our mistake, not yours. The node's log has the details under " + id + ".",
	})}
}

// formError keeps a problem with what a form said, to show both again.
func formError(err error) (*appliance.Problem, bool) {
	p, ok := appliance.AsProblem(err)
	return p, ok && (p.Kind == appliance.Invalid || p.Kind == appliance.Conflict || p.Kind == appliance.NoLogin || p.Kind == appliance.TooMany)
}

// local keeps a path of this node, and turns anything else into the overview:
// nobody is sent elsewhere after logging in. Browsers read a backslash as a
// slash and leave tabs and line ends out, and the redirect cleans the path.
func local(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.Contains(path, "\\") {
		return "/overview"
	}
	return path
}
