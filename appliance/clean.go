package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// grace keeps a file that was completed just now: the host that asked for it
// may be between two reports.
const grace = time.Hour

// taskLife is how long ended downloads are kept as history.
const taskLife = 90 * 24 * time.Hour

// Unused says what Clean would delete: files that no host needs and may
// install.
func (a *Appliance) Unused(context.Context) (CleanPlan, error) {
	f := a.folder
	f.mu.Lock()
	held := map[string]fileRecord{}
	for n, m := range f.files {
		held[n] = m
	}
	f.mu.Unlock()
	plan := CleanPlan{Files: []FileRow{}}
	for n, m := range held {
		if time.Since(m.Completed) > grace && !a.cat.needs(n) {
			plan.Files = append(plan.Files, FileRow{Name: n, URL: m.URL, Size: m.Size, SHA1: m.SHA1, SHA256: m.SHA256, State: Downloaded, DownloadedOn: m.Completed})
			plan.Bytes += m.Size
		}
	}
	sortedBy(plan.Files, func(r FileRow) string { return r.Name })
	return plan, nil
}

// Clean is "Delete Unused KB". Files return by themselves when a host needs
// them again.
func (a *Appliance) Clean(ctx context.Context, by Actor) (CleanPlan, error) {
	if err := by.need(Operator); err != nil {
		return CleanPlan{}, err
	}
	plan, err := a.Unused(ctx)
	if err != nil {
		return plan, err
	}
	for _, r := range plan.Files {
		if err := a.folder.remove(ctx, r.Name); err != nil {
			return plan, err
		}
		a.log.InfoContext(ctx, "unused file deleted: no host needs it", "file", r.Name, "bytes", r.Size, "by", by.Name)
	}
	if _, err := microsoft.CleanPartials(a.cfg.Folder, func(name string) bool { return a.cat.needs(name) }); err != nil {
		a.log.WarnContext(ctx, "partial files not cleaned", "err", err)
	}
	if len(plan.Files) == 0 {
		return plan, nil
	}
	return plan, a.db.Update(ctx, func(tx *replicate.Tx) error {
		return a.audit(tx, by, "delete unused files", "folder of "+a.cfg.Name, fmt.Sprintf("%d files, %s", len(plan.Files), bytesText(plan.Bytes)), "")
	})
}

// remove takes a file out of the folder, its manifest first: what has no
// manifest is not served.
func (f *folder) remove(ctx context.Context, name string) error {
	if err := f.a.db.Update(ctx, func(tx *replicate.Tx) error { return files.del(tx, name) }); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// DeleteFile removes one file; it is fetched again only when an agent asks
// for it.
func (a *Appliance) DeleteFile(ctx context.Context, by Actor, name string) error {
	if err := by.need(Operator); err != nil {
		return err
	}
	if _, _, ok := a.folder.known(name); !ok || name == microsoft.ScanCabName {
		return notFound("The folder holds no update file %.200q.", name)
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		if err := deleted.put(tx, name, tx.Now()); err != nil {
			return err
		}
		return a.audit(tx, by, "delete file", name, "", "")
	})
	if err != nil {
		return err
	}
	a.folder.mu.Lock()
	a.folder.barred[name] = time.Now()
	delete(a.folder.forced, name)
	a.folder.mu.Unlock()
	return a.folder.remove(ctx, name)
}

// cleanNightly cleans at some minute between 2:30 and 3:30, local time, and
// forgets old downloads.
func (a *Appliance) cleanNightly(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(nextNight(time.Now(), rand.N(time.Hour)))):
		}
		if a.cfg.CleanupKBs {
			if _, err := a.Clean(ctx, Node); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "unused files not deleted, trying again tomorrow", "err", err)
			}
		}
		if err := a.forgetTasks(ctx); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "old downloads not forgotten, trying again tomorrow", "err", err)
		}
	}
}

// nextNight is the next 2:30 after now, and into beyond it.
func nextNight(now time.Time, into time.Duration) time.Time {
	y, m, d := now.Date()
	at := time.Date(y, m, d, 2, 30, 0, 0, now.Location()).Add(into)
	if !at.After(now) {
		at = time.Date(y, m, d+1, 2, 30, 0, 0, now.Location()).Add(into)
	}
	return at
}

func (a *Appliance) forgetTasks(ctx context.Context) error {
	return a.db.Update(ctx, func(tx *replicate.Tx) error {
		for r, err := range tasks.all(tx) {
			if err != nil {
				return err
			}
			if !r.value.Finished.IsZero() && tx.Now().Sub(r.value.Finished) > taskLife {
				if err := tasks.del(tx, r.id); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
