package appliance

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sync/errgroup"

	"wuamesh/agentproto"
	"wuamesh/replicate"
	"wuamesh/replicate/swarm"
)

// listen takes the sockets that systemd passed, by their names http and
// https, or opens its own. The configuration decides: a socket that listens
// elsewhere is not taken.
func (a *Appliance) listen(cfg Config) error {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return fmt.Errorf("take the sockets that systemd passed: %w", err)
	}
	take := func(name, addr string) (net.Listener, error) {
		for _, l := range passed[name] {
			if samePort(l.Addr(), addr) {
				a.handover = true
				raw, err := l.(*net.TCPListener).SyscallConn()
				if err == nil {
					err = swarm.Congestion("tcp", addr, raw)
				}
				return l, err
			}
			a.log.Warn("the socket of systemd listens elsewhere than the configuration says and is left alone", "socket", l.Addr().String(), "configured", addr,
				"hint", "systemctl disable --now wuamesh-"+name+".socket, or systemctl edit it")
			if err := l.Close(); err != nil {
				return nil, fmt.Errorf("give back the socket that systemd passed: %w", err)
			}
		}
		conf := net.ListenConfig{Control: swarm.Congestion}
		l, err := conf.Listen(context.Background(), "tcp", addr)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			_, port, _ := net.SplitHostPort(addr)
			return nil, &Problem{Kind: Conflict, Msg: fmt.Sprintf("Port %s is taken by another program.", port), Hint: fmt.Sprintf("ss -ltnp 'sport = :%s' shows which; stop it, or set listen_%s.", port, name), Err: err}
		case errors.Is(err, syscall.EACCES):
			return nil, &Problem{Kind: Denied, Msg: fmt.Sprintf("This user may not listen on %s.", addr), Hint: "Ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; or set listen_" + name + ".", Err: err}
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return nil, &Problem{Kind: Invalid, Msg: addr + " is no address of this machine.", Hint: "ip address shows those it has; set listen_" + name + " to one of them, or to a port alone such as \":443\".", Err: err}
		case err != nil:
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		return l, nil
	}
	if a.https, err = take("https", cfg.ListenHTTPS); err != nil {
		return err
	}
	a.http, err = take("http", cfg.ListenHTTP)
	return err
}

// samePort says whether a listener has the port of a configured address.
func samePort(is net.Addr, addr string) bool {
	tcp, ok := is.(*net.TCPAddr)
	want, err := net.ResolveTCPAddr("tcp", addr)
	return ok && err == nil && tcp.Port == want.Port
}

// serve answers on both listeners until ctx ends, then lets requests finish
// for six seconds; streams of events are told at once.
func (a *Appliance) serve(ctx context.Context, pages http.Handler) error {
	conf, err := a.tlsConfig()
	if err != nil {
		return err
	}
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	g, ctx := errgroup.WithContext(ctx)
	run := func(handler http.Handler, l net.Listener, tlsConf *tls.Config) {
		handler = leaving(ctx, handler)
		g.Go(func() error {
			srv := &http.Server{
				Handler: handler, TLSConfig: tlsConf, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: 64 << 10,
				// HTTP/2 is not set up by itself where there is another protocol.
				Protocols: both, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){peerProtocol: a.acceptPeer},
				ErrorLog:    slog.NewLogLogger(a.log.Handler(), slog.LevelDebug), // what strangers do to a port is no news
				BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
				ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
			}
			stop := context.AfterFunc(ctx, func() { l.(*net.TCPListener).SetDeadline(time.Unix(1, 0)) })
			defer stop()
			var err error
			if tlsConf != nil {
				err = srv.ServeTLS(untilDeadline{l}, "", "")
			} else {
				err = srv.Serve(smallsListener{untilDeadline{l}, ctx, a.folder})
			}
			if ctx.Err() == nil {
				return err
			}
			a.streams.close()
			if a.handover {
				time.Sleep(handoverTime)
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRequests)
			defer cancel()
			if err := srv.Shutdown(last); err != nil {
				a.log.WarnContext(ctx, "requests cut off", "err", err)
				srv.Close()
			}
			return nil
		})
	}
	run(a.secure(pages), a.https, conf)
	run(a.plain(), a.http, nil)
	return g.Wait()
}

// How long a caller may take for the header of a request and from one request
// to the next, and requests in all after the process was told to end.
const (
	headerTime   = 10 * time.Second
	idleTime     = 2 * time.Minute
	lastRequests = 6 * time.Second
)

// handoverTime is how long callers with open connections have to hear that they
// should make new ones, which the next process takes.
const handoverTime = 500 * time.Millisecond

// leaving tells every caller who asks after ctx ended that its connection
// closes: in HTTP/1.1 by the header, in HTTP/2 by the GOAWAY that net/http
// makes of it. Shutdown alone cuts idle HTTP/2 connections without a word, and
// a request that is on its way into one is lost.
func leaving(ctx context.Context, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// An untilDeadline listener ends the accepting first, and Shutdown comes when
// every accepted connection is known to the server. Shutdown alone may miss
// one that was accepted at that very moment, whose caller then reads nothing:
// with sockets that systemd passes it could have waited for the next process.
type untilDeadline struct{ net.Listener }

func (l untilDeadline) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = http.ErrServerClosed
	}
	if err != nil {
		return nil, err
	}
	return &joiningConn{TCPConn: c.(*net.TCPConn)}, nil
}

// A joiningConn can send a small answer with one write. The buffer of net/http
// holds 4 kB: header and body of a file of that size leave it in two, and the
// caller wakes up twice.
type joiningConn struct {
	*net.TCPConn
	mu   sync.Mutex    // crypto/tls answers a caller's key update from the goroutine that reads
	held *bytes.Buffer // what waits to be sent together; else nil
}

func (c *joiningConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		return c.held.Write(p)
	}
	return c.TCPConn.Write(p)
}

var joinBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// join writes p to w, whose connection this is, and sends it with all that w
// has not sent yet. It returns how much of p was sent.
func (c *joiningConn) join(w http.ResponseWriter, p []byte) (int, error) {
	held := joinBuffers.Get().(*bytes.Buffer)
	c.mu.Lock()
	c.held = held
	c.mu.Unlock()
	n, err := w.Write(p)
	err = errors.Join(err, http.NewResponseController(w).Flush())
	c.mu.Lock()
	c.held = nil
	unsent := held.Len()
	k, err2 := c.TCPConn.Write(held.Bytes())
	c.mu.Unlock()
	unsent -= k
	held.Reset()
	joinBuffers.Put(held)
	if err2 != nil {
		c.Close() // net/http takes it for sent and would wait for the next request
	}
	return max(n-unsent, 0), errors.Join(err, err2)
}

// connKey is where the context of a request has its connection.
type connKey struct{}

// joiningConnOf is the connection of a request; nil where it is shared with
// other requests, in HTTP/2.
func joiningConnOf(r *http.Request) *joiningConn {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if smalls, ok := c.(*smallsConn); ok {
		c = smalls.joiningConn
	}
	if joining, ok := c.(*joiningConn); ok && r.ProtoMajor == 1 {
		return joining
	}
	return nil
}

// tlsConfig tells callers apart by the server name they ask for: agents and
// other nodes show a certificate, enrolling agents, machines that want to
// join, and browsers do not.
func (a *Appliance) tlsConfig() (*tls.Config, error) {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := a.browsers.Load(); c != nil && !strings.HasSuffix(h.ServerName, ".wuamesh.internal") {
				return c, nil
			}
			if strings.HasSuffix(h.ServerName, ".wuamesh.internal") {
				return a.auth.nodeCertificate(), nil
			}
			return a.auth.webCertificate(), nil
		},
	}
	agents := base.Clone()
	agents.MinVersion = tls.VersionTLS13
	agents.ClientAuth, agents.VerifyConnection = tls.RequireAnyClientCert, a.agentChain
	base.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case h.ServerName == agentproto.AgentServerName:
			return agents, nil
		case h.ServerName == replicate.PeerServerName && a.mesh.Load() != nil:
			return a.peerTLS(), nil
		}
		return nil, nil
	}
	return base, nil
}

// secure is what the HTTPS listener serves, by the server name asked for.
func (a *Appliance) secure(pages http.Handler) http.Handler {
	folder := a.folder.handler()
	agents := http.NewServeMux()
	agents.HandleFunc("POST "+agentproto.PathCheckin, a.agent(a.checkin))
	agents.HandleFunc("POST "+agentproto.PathReport, a.agent(a.report))
	agents.HandleFunc("POST "+agentproto.PathResults, a.agent(a.results))
	agents.HandleFunc("GET "+agentproto.PathEvents, a.agent(a.events))
	agents.HandleFunc(agentproto.PathFolder, func(w http.ResponseWriter, r *http.Request) {
		if !a.sentAway(w, r) {
			folder.ServeHTTP(w, r)
		}
	})
	enroll := http.NewServeMux()
	enroll.HandleFunc("POST "+agentproto.PathEnroll, a.enroll)
	newcomers := http.NewServeMux()
	newcomers.HandleFunc("POST "+pathJoin, a.join)
	newcomers.HandleFunc("POST "+pathDialBack, a.dialBackNewcomer)
	people := http.NewServeMux()
	people.Handle(agentproto.PathFolder, folder)
	people.HandleFunc("GET "+agentproto.PathInstaller, a.serveInstaller)
	people.HandleFunc("GET /healthz", a.healthz)
	people.HandleFunc("GET /metrics", a.metrics)
	people.Handle("/", pages)
	filesFirst := a.folder.first(people)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The connection decides, not the Host header: only it was verified.
		switch r.TLS.ServerName {
		case agentproto.AgentServerName:
			agents.ServeHTTP(w, r)
		case agentproto.EnrollServerName:
			enroll.ServeHTTP(w, r)
		case replicate.JoinServerName:
			newcomers.ServeHTTP(w, r)
		case replicate.PeerServerName:
			http.Error(w, "Nodes speak "+peerProtocol+".", http.StatusMisdirectedRequest)
		default:
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
			filesFirst.ServeHTTP(w, r)
		}
	})
}

// plain is what the HTTP listener serves: the folder, the agent's installer,
// and the way to HTTPS.
func (a *Appliance) plain() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(agentproto.PathFolder, a.folder.handler())
	mux.HandleFunc("GET "+agentproto.PathInstaller, a.serveInstaller)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if _, port, _ := net.SplitHostPort(a.https.Addr().String()); port != "443" {
			host = net.JoinHostPort(host, port)
		}
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusMovedPermanently)
	})
	return a.folder.first(mux)
}
