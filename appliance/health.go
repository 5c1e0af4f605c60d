package appliance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// healthy says what keeps the node from working; empty when nothing does.
func (a *Appliance) healthy(ctx context.Context) (wrong []string) {
	if err := a.db.View(ctx, func(*replicate.Tx) error { return nil }); err != nil {
		wrong = append(wrong, "the store cannot be read")
	}
	if a.db.Full() != nil {
		wrong = append(wrong, "the disk with the records is full")
	}
	free, err := microsoft.Free(a.cfg.Folder)
	switch p := a.folder.trouble(); {
	case p != nil:
		wrong = append(wrong, "t"+strings.TrimPrefix(strings.TrimSuffix(p.Msg, "."), "T"))
	case err == nil && free < int64(a.config().DiskFloor):
		wrong = append(wrong, fmt.Sprintf("the folder's disk has %s free, below the floor of %s", bytesText(free), bytesText(int64(a.config().DiskFloor))))
	}
	return wrong
}

// healthz answers 200 when the node works, 503 with reasons when not.
func (a *Appliance) healthz(w http.ResponseWriter, r *http.Request) {
	wrong := a.healthy(r.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if len(wrong) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(map[string]any{"ok": len(wrong) == 0, "problems": append([]string{}, wrong...)})
}

// metrics answers in the Prometheus text format, version 0.0.4. It names no
// host: it asks for no login.
func (a *Appliance) metrics(w http.ResponseWriter, r *http.Request) {
	s, err := a.Status(r.Context())
	if err != nil {
		http.Error(w, "The node's state cannot be read.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	put := func(name, kind, help string, value any) {
		fmt.Fprintf(w, "# HELP wuamesh_%s %s\n# TYPE wuamesh_%s %s\nwuamesh_%s %v\n", name, help, name, kind, name, value)
	}
	put("hosts", "gauge", "Hosts that are enrolled.", s.Hosts)
	put("hosts_online", "gauge", "Hosts that are connected or checked in when due.", s.Online)
	put("hosts_compliant", "gauge", "Hosts "+s.Rule.String()+".", s.Compliant)
	fmt.Fprintf(w, "# HELP wuamesh_statuses Pairs of host and update by state.\n# TYPE wuamesh_statuses gauge\n")
	for state, n := range map[string]int{"OK": s.Pairs.OK, "MISSING": s.Pairs.Missing, "PENDING": s.Pairs.Pending, "DISCARDED": s.Pairs.Discarded} {
		fmt.Fprintf(w, "wuamesh_statuses{state=%q} %d\n", state, n)
	}
	put("folder_files", "gauge", "Files in the folder.", s.Files)
	put("folder_bytes", "gauge", "Bytes in the folder.", s.FolderBytes)
	put("folder_free_bytes", "gauge", "Bytes free on the folder's disk.", s.FreeBytes)
	put("upstream_bytes_total", "counter", "Bytes moved from Microsoft since the start.", s.FromUpstream)
	put("agent_bytes_total", "counter", "Bytes of files sent since the start.", s.ToAgents)
	put("installs_total", "counter", "Updates that agents installed since the start.", s.Installed)
	put("store_bytes", "gauge", "Bytes of the store on disk.", a.db.Size())
	put("nodes", "gauge", "Nodes of the mesh besides this one.", s.Standing.Others)
	put("nodes_away", "gauge", "Nodes that this one does not reach.", len(s.Standing.Away))
	put("behind_seconds", "gauge", "For how long a connected node has had something that this one lacks.", s.Standing.Behind.Seconds)
	put("behind_records", "gauge", "At most so many records a connected node has and this one lacks.", s.Standing.Behind.Records)
	put("goroutines", "gauge", "Goroutines of the process.", runtime.NumGoroutine())
	if !s.Cab.Date.IsZero() {
		put("scan_cab_timestamp_seconds", "gauge", "When Microsoft published the scan cab that is held.", s.Cab.Date.Unix())
	}
}

// superviseBySystemd says that the node is ready, feeds systemd's watchdog
// while it is healthy enough to answer, and says when it stops. Without
// systemd it does nothing.
func (a *Appliance) superviseBySystemd(ctx context.Context) error {
	daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=serving "+a.URL())
	defer daemon.SdNotify(false, daemon.SdNotifyStopping)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		<-ctx.Done()
		return nil
	}
	return every(ctx, a.log, interval/3, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, interval/3)
		defer cancel()
		// A store that cannot be read any more is for a restart to mend.
		if err := a.db.View(ctx, func(*replicate.Tx) error { return nil }); err != nil {
			return err
		}
		_, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		return err
	})
}

// bytesText says n bytes in the unit people read.
func bytesText(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n >= u.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func clock(t time.Time) string { return t.Local().Format("2 Jan 15:04") }
