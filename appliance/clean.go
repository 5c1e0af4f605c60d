package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate"
)

// What came or was sent this recently stays, needed or not: a host that just
// asked for a file is installing it, and its next report may name it again.
// By hand the admin saw the list, so only transfers of the moment are safe
// from it; in the night nobody looks, so a day's work stays.
const (
	graceByHand  = 10 * time.Minute
	graceAtNight = 24 * time.Hour
	// What was found in the folder is for hosts that may not have their agent
	// yet: it came over the line once, and agents are rolled out over weeks.
	graceFound = 30 * 24 * time.Hour
)

// cleanNightly cleans every night at a minute between 2:30 and 3:30, local
// time. It is a part of the node.
func (a *Appliance) cleanNightly(ctx context.Context) error {
	for {
		timer := time.NewTimer(time.Until(nextCleaning(time.Now(), rand.IntN(60))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if !a.config().CleanupKBs {
			continue
		}
		if _, err := a.folder.clean(ctx, Node, graceAtNight); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "cleaning failed, trying again tomorrow", "err", err)
		}
	}
}

// nextCleaning is the next time that many minutes after 2:30 that lies at
// least an hour ahead: the hour keeps one night from being cleaned twice.
func nextCleaning(now time.Time, minute int) time.Time {
	at := func(days int) time.Time {
		return time.Date(now.Year(), now.Month(), now.Day()+days, 2, 30+minute, 0, 0, now.Location())
	}
	for day := 0; ; day++ {
		if t := at(day); t.Sub(now) >= time.Hour {
			return t
		}
	}
}

// Unused says what Clean would delete.
func (a *Appliance) Unused(context.Context) (CleanPlan, error) {
	return a.folder.unused(graceByHand), nil
}

// Clean is "Delete Unused KB".
func (a *Appliance) Clean(ctx context.Context, by Actor) (CleanPlan, error) {
	if err := by.need(Operator); err != nil {
		return CleanPlan{}, err
	}
	return a.folder.clean(ctx, by, graceByHand)
}

// unused are the files that no host needs any more and that were neither
// completed nor sent within grace, nor asked for by another node, at night neither found in the folder within
// graceFound, by name. The scan cab is always needed, and
// what an admin uploaded and no update names is that admin's to delete.
func (f *folder) unused(grace time.Duration) CleanPlan {
	var old []FileRow
	brought := map[string]bool{}
	f.mu.RLock()
	for name, h := range f.held {
		brought[name] = h.Uploaded != ""
		used := time.Unix(max(h.asked.Load(), h.Completed.Unix()), 0)
		waits := grace == graceAtNight && time.Since(h.Found) < graceFound
		if name != microsoft.ScanCabName && !waits && time.Since(used) >= grace {
			old = append(old, rowOf(name, h))
		}
	}
	f.mu.RUnlock()
	plan := CleanPlan{Files: []FileRow{}}
	for _, row := range old {
		w, known := f.node.cat.fileNamed(row.Name)
		_, asked := f.share.ask(row.Name, time.Now())
		if f.node.cat.needs(row.Name) || !known && brought[row.Name] || asked {
			continue
		}
		row.Note = "No update that hosts report has this file."
		if known {
			row.Note = "No host needs it and may install it: " + cmp.Or(w.title, "an update without a title") + "."
		}
		plan.Files, plan.Bytes = append(plan.Files, row), plan.Bytes+row.Size
	}
	f.overQuota(&plan)
	slices.SortFunc(plan.Files, func(x, y FileRow) int { return strings.Compare(x.Name, y.Name) })
	return plan
}

// overQuota adds what goes because the folder holds more than its quota.
func (f *folder) overQuota(plan *CleanPlan) {
	more, _ := f.spare(0, worth{}, false)
	for _, row := range more.Files {
		if !slices.ContainsFunc(plan.Files, func(r FileRow) bool { return r.Name == row.Name }) {
			plan.Files, plan.Bytes = append(plan.Files, row), plan.Bytes+row.Size
		}
	}
}

// clean deletes what is unused, and says in the log of each file why.
func (f *folder) clean(ctx context.Context, by Actor, grace time.Duration) (CleanPlan, error) {
	if err := f.cleanPartials(ctx); err != nil {
		f.log.WarnContext(ctx, "files that no download goes on with are not deleted", "err", err)
	}
	plan := f.unused(grace)
	if len(plan.Files) == 0 {
		return plan, nil
	}
	if err := f.giveUp(ctx, plan, by, "clean folder", ""); err != nil {
		return CleanPlan{}, fmt.Errorf("clean the folder: %w", err)
	}
	f.log.InfoContext(ctx, "folder cleaned", "files", len(plan.Files), "bytes", plan.Bytes, "by", by.Name)
	return plan, nil
}

func (f *folder) queued(name string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.queue[name] != nil
}

// remove deletes files, records first: a crash between the two leaves files
// without a record, which are verified and cleaned again. On a disk that is
// too full for records files go first, or nothing could ever be cleaned: a
// crash leaves records of files that are gone, which the next look drops.
func (f *folder) remove(ctx context.Context, names []string, also func(*replicate.Tx) error) error {
	if f.node.db.Full() != nil {
		return errors.Join(f.unlink(names), f.forget(ctx, names, also))
	}
	if err := f.forget(ctx, names, also); err != nil {
		return err
	}
	return f.unlink(names)
}

func (f *folder) unlink(names []string) error {
	f.mu.Lock()
	var errs []error
	for _, name := range names {
		delete(f.held, name)
		delete(f.doubts, name)
		delete(f.strange, name)
		if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	f.mu.Unlock()
	f.changed()
	return errors.Join(errs...)
}

// DeleteFile removes one file from the folder; it is fetched again only when
// an agent asks for it.
func (a *Appliance) DeleteFile(ctx context.Context, by Actor, name string) error {
	f := a.folder
	if err := by.need(Operator); err != nil {
		return err
	}
	if err := microsoft.CheckName(name); err != nil {
		return notFound("There is no file %.200q in the folder.", name)
	}
	if name == microsoft.ScanCabName {
		return &Problem{Kind: Conflict, Msg: "The scan cab stays: every host scans with it.", Hint: "It is replaced when Microsoft publishes a newer one."}
	}
	info, err := f.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return notFound("There is no file %s in the folder.", name)
	}
	f.mark(name, time.Now()) // first: who looks for wanted files meanwhile leaves it alone
	err = f.remove(ctx, []string{name}, func(tx *replicate.Tx) error {
		if err := deleted.put(tx, name, tx.Now()); err != nil {
			return err
		}
		return a.audit(tx, by, "delete file", "file "+name, bytesText(info.Size()), "")
	})
	if err != nil {
		f.mark(name, time.Time{})
		return fmt.Errorf("delete %s: %w", name, err)
	}
	f.changed()
	a.log.InfoContext(ctx, "file deleted", "file", name, "bytes", info.Size(), "why", "by hand", "by", by.Name)
	return nil
}

// mark says that a file was deleted by hand at that time; zero that it was not.
func (f *folder) mark(name string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.marks[name] = at; at.IsZero() {
		delete(f.marks, name)
	}
}
