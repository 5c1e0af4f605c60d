// Package api is the node's JSON interface under /api/v1/: what the pages do,
// for scripts and other programs. Routes, their OpenAPI description and the
// client that the command line uses stand side by side, made from one table,
// so that none of them can say what the others do not do.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"

	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// Prefix is where the interface stands.
const Prefix = "/api/v1/"

// maxBody bounds what a request may send: the largest is a rule package of
// some thousand lines.
const maxBody = 4 << 20

// A server answers the routes for one node.
type server struct {
	node *appliance.Appliance
	log  *slog.Logger
}

// New returns the handler of everything under [Prefix]. Every route but the
// description itself needs a bearer token (RFC 6750, section 2.1).
func New(node *appliance.Appliance, log *slog.Logger) http.Handler {
	s := &server{node: node, log: log.With("part", "api")}
	mux := http.NewServeMux()
	for _, rt := range routes() {
		mux.Handle(rt.method+" "+Prefix+rt.path, s.handler(rt))
	}
	doc := describe(routes())
	mux.HandleFunc("GET "+Prefix+"openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(doc)
	})
	mux.HandleFunc(Prefix, func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &appliance.Problem{
			Kind: appliance.NotFound, Msg: fmt.Sprintf("The API has no %s %s.", r.Method, r.URL.Path),
			Hint: "See " + Prefix + "openapi.json for what it has.",
		})
	})
	return mux
}

// A call is one request with what every handler needs of it.
type call struct {
	*http.Request
	node  *appliance.Appliance
	actor appliance.Actor
}

// A route is one line of the interface.
type route struct {
	method, path string
	summary      string
	role         appliance.Role
	query        []param
	body, answer any // zero values, for the description; nil for none
	status       int // of success; 0 is 200
	do           func(call) (any, error)
	stream       func(call, io.Writer) error // instead of do: answers bytes, and an error cuts them off
	bytes        bool                        // the body is bytes that do reads itself, of any number
}

// A param is one query parameter. All may be repeated when many is set.
type param struct {
	name, doc string
	many      bool
}

func (s *server) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor, err := s.actor(r)
		if err == nil && !actor.May(rt.role) {
			err = &appliance.Problem{
				Kind: appliance.Denied, Code: "WM-501",
				Msg:  fmt.Sprintf("This needs a token with the role %s; this one is %s.", rt.role, actor.Role),
				Hint: "Make one under Admins and tokens, or with wuamesh token api.",
			}
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if !rt.bytes {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		if rt.stream != nil {
			s.stream(w, call{Request: r, node: s.node, actor: actor}, rt)
			return
		}
		v, err := rt.do(call{Request: r, node: s.node, actor: actor})
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.reply(w, r, rt.status, v)
	})
}

// stream answers bytes. What fails before the first of them is explained;
// later the connection is cut, so that nobody takes half for the whole.
func (s *server) stream(w http.ResponseWriter, c call, rt route) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := &counted{w: w}
	err := rt.stream(c, out)
	if err == nil {
		return
	}
	if out.n == 0 {
		s.fail(w, c.Request, err)
		return
	}
	s.log.ErrorContext(c.Context(), "answer cut off", "path", c.URL.Path, "err", err)
	panic(http.ErrAbortHandler)
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// actor reads the bearer token. Tokens never come in the query, where logs
// and histories would keep them.
func (s *server) actor(r *http.Request) (appliance.Actor, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return appliance.Actor{}, &appliance.Problem{
			Kind: appliance.NoLogin, Msg: "The API needs a token.",
			Hint: "Send the header Authorization: Bearer wmt_…; make a token under Admins and tokens.",
		}
	}
	addr := r.RemoteAddr
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		addr = ap.Addr().Unmap().String()
	}
	return s.node.TokenActor(r.Context(), strings.TrimSpace(token), addr)
}

func (s *server) reply(w http.ResponseWriter, r *http.Request, status int, v any) {
	if v == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b, err := json.Marshal(v) // whole answer or none
	if err != nil {
		s.fail(w, r, fmt.Errorf("encode the answer of %s: %w", r.URL.Path, err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if status != 0 {
		w.WriteHeader(status)
	}
	w.Write(append(b, '\n'))
}

// fail answers with problem details (RFC 9457). What is not the caller's to
// mend goes to the log, and only its being there to the caller.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, ok := appliance.AsProblem(err)
	if !ok {
		if errors.Is(err, context.Canceled) {
			return // nobody is there any more
		}
		s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		agentproto.WriteProblem(w, agentproto.Problem{
			Title: "Something went wrong on this node.", Status: http.StatusInternalServerError, Hint: "The node's log has the details.",
		})
		return
	}
	if p.Kind == appliance.NoLogin {
		w.Header().Set("WWW-Authenticate", `Bearer realm="wuamesh"`)
	}
	agentproto.WriteProblem(w, agentproto.Problem{
		Title: p.Msg, Status: p.Kind.Status(), Hint: p.Hint, Field: p.Field, Code: p.Code,
	})
}

// decode reads the request's JSON body. Unknown fields are refused: a script
// that misspells one should hear of it.
func (c call) decode(v any) error {
	d := json.NewDecoder(c.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil && d.More() {
		err = errors.New("more than one JSON value")
	}
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return &appliance.Problem{
			Kind: appliance.TooLarge, Msg: fmt.Sprintf("The request is larger than %d MB.", tooBig.Limit>>20),
			Hint: "Split it.", Err: err,
		}
	case errors.Is(err, io.EOF):
		return &appliance.Problem{Kind: appliance.Invalid, Msg: "The request has no body.", Hint: "Send JSON, as in " + Prefix + "openapi.json.", Err: err}
	case err != nil:
		return &appliance.Problem{
			Kind: appliance.Invalid, Msg: "The request's JSON cannot be read: " + strings.TrimPrefix(err.Error(), "json: ") + ".",
			Hint: "Compare with " + Prefix + "openapi.json.", Err: err,
		}
	}
	return nil
}
