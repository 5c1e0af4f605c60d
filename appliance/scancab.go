package appliance

import (
	"context"
	"time"

	"wuamesh/agentproto"
	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// keepCab asks Microsoft for the scan cab once a day, and after a failure
// with growing waits.
func (a *Appliance) keepCab(ctx context.Context) error {
	f := a.folder
	if !a.cfg.Internet {
		f.mu.Lock()
		f.cabNote = "This node may not download from Microsoft."
		f.mu.Unlock()
		<-ctx.Done()
		return nil
	}
	attempts := 0
	for {
		f.mu.Lock()
		wait := time.Until(f.cab.Checked.Add(cabEvery))
		if attempts > 0 {
			wait = backoff(attempts)
		}
		f.cabTry = time.Now().Add(max(wait, 0))
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		case <-f.cabAsked:
		}
		if err := a.fetchCab(ctx); err != nil {
			attempts++
			a.log.WarnContext(ctx, "scan cab not downloaded, trying again later", "err", err)
		} else {
			attempts = 0
		}
	}
}

// fetchCab asks for the scan cab once, as a task that is kept.
func (a *Appliance) fetchCab(ctx context.Context) error {
	f := a.folder
	f.mu.Lock()
	prev := f.cab
	t := &Task{ID: newTaskID(), Kind: "scan", File: microsoft.ScanCabName, Status: "running", By: f.cabBy, Queued: time.Now(), Started: time.Now(), Attempts: 1}
	f.cabBy = "schedule"
	f.tasks[t.File] = t
	f.mu.Unlock()
	if err := f.save(ctx, t); err != nil {
		return err
	}
	if !f.holdsCab(prev) {
		prev.SHA256 = "" // it was deleted or cut outside of us
	}
	v, fetched, changed, err := a.source.DownloadScanCab(ctx, a.cfg.Folder, prev, microsoft.DownloadOptions{Progress: f.progress(t), Floor: int64(a.cfg.DiskFloor)})
	f.fromUpstream.Add(fetched)
	if err == nil {
		err = a.db.Update(ctx, func(tx *replicate.Tx) error { return cabs.put(tx, "scan", v) })
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.mu.Lock()
	delete(f.tasks, t.File)
	t.Finished, t.Fetched, t.Rate = time.Now(), fetched, 0
	switch {
	case err != nil:
		t.Status = "failed"
		t.Error, t.Hint = a.explain(err)
		f.cabNote = t.Error
	default:
		f.cab = v
		t.Status, t.Size, t.Done, f.cabNote = "done", v.Size, v.Size, "downloaded"
		if !changed {
			t.Status, f.cabNote = "unchanged", "unchanged since "+clock(v.Fetched)
		}
	}
	f.mu.Unlock()
	a.watch.tell("cab")
	if err := f.save(ctx, t); err != nil {
		return err
	}
	if err == nil && changed {
		a.log.InfoContext(ctx, "scan cab downloaded", "bytes", v.Size, "fetched", fetched)
		for _, id := range a.streams.connected() {
			a.streams.send(id, event{"policy", struct{}{}}) // agents check in and find the new cab
		}
	}
	return err
}

// holdsCab says whether the folder's cab is the one that was checked.
func (f *folder) holdsCab(v microsoft.CabVersion) bool {
	st, err := f.root.Stat(microsoft.ScanCabName)
	return err == nil && v.SHA256 != "" && st.Size() == v.Size
}

// DownloadCab asks Microsoft for the scan cab now.
func (a *Appliance) DownloadCab(ctx context.Context, by Actor) error {
	if err := a.mayDownload(by); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error { return a.audit(tx, by, "download scan cab", "wsusscn2.cab", "", "") })
	if err != nil {
		return err
	}
	a.folder.mu.Lock()
	a.folder.cabBy = by.Name
	a.folder.mu.Unlock()
	select {
	case a.folder.cabAsked <- struct{}{}:
	default: // somebody asked already
	}
	return nil
}

// cabRef names the scan cab for agents; nil when there is none.
func (f *folder) cabRef() *agentproto.CabRef {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cab.SHA256 == "" {
		return nil
	}
	return &agentproto.CabRef{SHA256: f.cab.SHA256, Size: f.cab.Size, Date: f.cab.Date()}
}

// cabView is the scan cab as pages show it.
func (f *folder) cabView() CabView {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := CabView{
		Held: f.cab.SHA256 != "", Size: f.cab.Size, SHA256: f.cab.SHA256, Date: f.cab.Date(), Checked: f.cab.Checked,
		Fetched: f.cab.Fetched, Note: f.cabNote, NextTry: f.cabTry,
	}
	if t := f.tasks[microsoft.ScanCabName]; t != nil && t.Status == "running" {
		v.Running, v.Progress = true, percent(t.Done, t.Size)
	}
	return v
}
