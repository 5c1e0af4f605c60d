package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"wuamesh/replicate"
)

// BackupInfo says what a backup is of.
type BackupInfo = replicate.BackupInfo

// Backup writes all records and keys of the node, as they are at one moment,
// to w. The folder's files are not in it: they are fetched again. Whoever has
// the backup can be this node, so it wants keeping like a password.
func (a *Appliance) Backup(ctx context.Context, by Actor, w io.Writer) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	err := a.db.Update(ctx, func(tx *replicate.Tx) error {
		return a.audit(tx, by, "back up node", "node "+a.NodeName(), "", "")
	})
	if err != nil {
		return err
	}
	info, err := a.db.Backup(ctx, w)
	if err == nil {
		a.log.InfoContext(ctx, "backed up", "by", by.Name, "entries", info.Entries)
	}
	return err
}

// VerifyBackup reads a backup to its end and says what it is of.
func VerifyBackup(path string) (BackupInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("read the backup: %w", err)
	}
	defer f.Close()
	info, err := replicate.VerifyBackup(f)
	return info, explainBackup(path, err)
}

func explainBackup(path string, err error) error {
	switch {
	case errors.Is(err, replicate.ErrNewer):
		return &Problem{Kind: Conflict, Msg: "The backup " + path + " was made by a newer version of wuamesh.", Hint: "Install that version, then restore it; nothing was changed.", Err: err}
	case errors.Is(err, replicate.ErrBadBackup):
		return &Problem{Kind: Invalid, Msg: "The backup " + path + " is damaged or no backup of wuamesh.", Hint: "Take another; nothing was changed.", Err: err}
	}
	return err
}

// Restore makes the data directory of cfg what the backup says. A node must
// not run there. What is there already is moved aside, to the path that is
// returned, when replace is set, and is a [Problem] otherwise.
func Restore(cfg Config, path string, replace bool, log *slog.Logger) (info BackupInfo, aside string, err error) {
	if info, err = VerifyBackup(path); err != nil {
		return info, "", err
	}
	store := filepath.Join(cfg.Data, "store")
	if _, err := os.Lstat(store); err == nil {
		db, err := openStore(cfg, log)
		// A store that cannot be read is a reason to restore, not an obstacle;
		// one that is in use is.
		if p, ok := errors.AsType[*Problem](err); ok && errors.Is(p.Err, replicate.ErrInUse) {
			return info, "", &Problem{Kind: Conflict, Msg: "The node runs: its data in " + cfg.Data + " is in use.", Hint: "Stop it first: systemctl stop wuamesh wuamesh-https.socket wuamesh-http.socket.", Err: err}
		}
		if err == nil {
			if err := db.Close(); err != nil {
				return info, "", err
			}
		}
		if !replace {
			return info, "", &Problem{Kind: Conflict, Msg: "There is data in " + cfg.Data + " already.", Hint: "With --replace it is moved aside and the backup takes its place."}
		}
		aside = store + ".before-" + time.Now().UTC().Format("20060102T150405")
		if err := os.Rename(store, aside); err != nil {
			return info, "", err
		}
	} else if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return info, "", fmt.Errorf("make the data directory: %w", err)
	}
	info, err = replicate.Restore(replicate.Options{Dir: store, Log: log}, func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil {
		if aside != "" {
			err = errors.Join(err, os.Rename(aside, store))
		}
		return info, "", explainBackup(path, err)
	}
	return info, aside, KeepOwner(cfg.Data)
}

// KeepOwner gives what root wrote into a directory to the user whose
// directory it is: the service runs as that one.
func KeepOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Getuid() != 0 || st.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	})
}
