package packaging_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wuamesh/agentproto/agent"
	"wuamesh/agentproto/agent/wua"
	demonstration "wuamesh/appliance/demo"
	"wuamesh/appliance/microsoft/microsofttest"
)

// The test's own program plays, inside the container, what is not the
// product: Microsoft, a host with its agent, and people who never stop
// clicking. $WUAMESH_PLAY says which.
func TestMain(m *testing.M) {
	players := map[string]func(context.Context) error{"microsoft": playMicrosoft, "host": playHost, "crowd": playCrowd}
	play, ok := players[os.Getenv("WUAMESH_PLAY")]
	if !ok {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := play(ctx); err != nil {
		fmt.Println("FAILED:", err)
		os.Exit(1)
	}
}

const microsoftAddr = "127.0.0.1:8099"

func world() *microsofttest.World {
	return microsofttest.New(microsofttest.Options{Seed: 1, Months: 2, FileBytes: 300_000})
}

// playMicrosoft serves the scan cab and the files until it is ended.
func playMicrosoft(ctx context.Context) error {
	l, err := net.Listen("tcp", microsoftAddr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: world(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// playHost runs the agent of a simulated host, whose directory is
// $WUAMESH_HOST, and restarts the host when Windows asks for it.
func playHost(ctx context.Context) error {
	w, dir := world(), os.Getenv("WUAMESH_HOST")
	sim := wua.NewSim(wua.SimOptions{Seed: 1, Number: 7, Catalog: func() []wua.SimUpdate { return demonstration.Catalogue(w) }, InstallTime: 10 * time.Millisecond})
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelInfo}))
	for ctx.Err() == nil {
		a, err := agent.Open(agent.Options{Dir: dir, INI: filepath.Join(dir, "wapt-get.ini"), Machine: sim, Version: "0.1.0", Log: log, Seed: 1})
		if err != nil {
			return err
		}
		up, down := context.WithCancel(ctx)
		go func() {
			for up.Err() == nil {
				if f, err := sim.Facts(up); err == nil && f.RestartDue {
					down()
				}
				time.Sleep(time.Second)
			}
		}()
		err = a.Run(up)
		down()
		if err = errors.Join(err, a.Close()); err != nil && ctx.Err() == nil && up.Err() == nil {
			return err
		}
		sim.Restart()
	}
	return nil
}

// playCrowd asks the node for pages and files without a pause, on new
// connections and on old ones, until it is ended; every answer must be right.
func playCrowd(ctx context.Context) error {
	var asked, failed atomic.Int64
	var g sync.WaitGroup
	for i := range 8 {
		client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: i%2 == 0, ForceAttemptHTTP2: i%4 == 3,
		}}
		url := []string{"https://localhost/healthz", "http://localhost/waptwua/wsusscn2.cab"}[i/4]
		g.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Get(url)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if err == nil && resp.StatusCode != http.StatusOK {
						err = fmt.Errorf("%s", resp.Status)
					}
				}
				asked.Add(1)
				if err != nil {
					failed.Add(1)
					fmt.Println(time.Now().Format(time.TimeOnly), url, err)
				}
				time.Sleep(5 * time.Millisecond) // the two cores are the node's too
			}
		})
	}
	g.Wait()
	fmt.Printf("asked %d failed %d\n", asked.Load(), failed.Load())
	return nil
}
