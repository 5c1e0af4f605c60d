package replicate_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"wuamesh/replicate"
)

func openIn(t testing.TB, dir string) *replicate.DB {
	t.Helper()
	db, err := replicate.Open(replicate.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func putAll(t testing.TB, db *replicate.DB, value string, keys ...string) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *replicate.Tx) error {
		for _, k := range keys {
			if err := tx.Put(k, []byte(value)); err != nil {
				return err
			}
		}
		return tx.Local().Put("mine", []byte(value))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func valueOf(t testing.TB, db *replicate.DB, key string) (value string) {
	t.Helper()
	err := db.View(t.Context(), func(tx *replicate.Tx) error {
		b, err := tx.Get(key)
		value = string(b)
		if errors.Is(err, replicate.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func restoreOf(t testing.TB, backup []byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	_, err := replicate.Restore(replicate.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)}, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(backup)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// give lets to have everything that from has, as two nodes of a mesh do.
func give(t testing.TB, from, to *replicate.DB) {
	t.Helper()
	if err := to.Pull(t.Context(), from); err != nil {
		t.Fatal(err)
	}
}

// TestBackupIsOfOneMoment backs a store up that is written to without a
// pause: each change set is in the backup whole or not at all.
func TestBackupIsOfOneMoment(t *testing.T) {
	db := openIn(t, filepath.Join(t.TempDir(), "a"))
	putAll(t, db, "0", "x/1", "y/1")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				putAll(t, db, fmt.Sprint(i), "x/1", "y/1")
			}
		}
	}()
	for range 5 {
		var b bytes.Buffer
		info, err := db.Backup(t.Context(), &b)
		if err != nil || info.Entries == 0 {
			t.Fatalf("%+v, %v", info, err)
		}
		again := openIn(t, restoreOf(t, b.Bytes()))
		if x, y := valueOf(t, again, "x/1"), valueOf(t, again, "y/1"); x != y || x == "" {
			t.Errorf("the backup has half of a change set: %q and %q", x, y)
		}
		if again.NodeID() != db.NodeID() {
			t.Errorf("the restored node is %s, was %s", again.NodeID(), db.NodeID())
		}
	}
	close(stop)
	<-done
}

// TestRestoredNodeKeepsItsPlace restores a node to yesterday. What it wrote
// since comes back from its peer, and what it writes now is new to the peer.
func TestRestoredNodeKeepsItsPlace(t *testing.T) {
	a, b := openIn(t, filepath.Join(t.TempDir(), "a")), openIn(t, filepath.Join(t.TempDir(), "b"))
	putAll(t, a, "before", "k/1", "k/2")
	var backup bytes.Buffer
	if _, err := a.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	putAll(t, a, "after", "k/2", "k/3") // acknowledged, and not in the backup
	give(t, a, b)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = openIn(t, restoreOf(t, backup.Bytes()))
	putAll(t, a, "new", "k/4")
	written := a.Vector()
	for writer, n := range b.Vector() {
		if written[writer] > n {
			t.Errorf("the restored node goes on as %s after %d, up to %d", writer, n, written[writer])
		}
	}
	give(t, b, a)
	give(t, a, b)
	for key, want := range map[string]string{"k/1": "before", "k/2": "after", "k/3": "after", "k/4": "new"} {
		if x, y := valueOf(t, a, key), valueOf(t, b, key); x != want || y != want {
			t.Errorf("%s is %q on the restored node and %q on its peer, want %q", key, x, y, want)
		}
	}
}

func TestDamagedBackupIsRefused(t *testing.T) {
	db := openIn(t, filepath.Join(t.TempDir(), "a"))
	for i := range 50 {
		putAll(t, db, fmt.Sprint(i), fmt.Sprintf("k/%d", i))
	}
	var b bytes.Buffer
	if _, err := db.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if _, err := replicate.VerifyBackup(bytes.NewReader(b.Bytes())); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "store")
	for i := 1; i < b.Len(); i += 1 + b.Len()/97 {
		spoiled := bytes.Clone(b.Bytes())
		spoiled[i] ^= 0x10
		for what, bad := range map[string][]byte{"changed": spoiled, "cut short": b.Bytes()[:i]} {
			// A bit of gzip's own may change nothing that was backed up.
			if _, err := replicate.VerifyBackup(bytes.NewReader(bad)); err == nil && !bytes.Equal(inflate(bad), inflate(b.Bytes())) {
				t.Errorf("a backup %s at byte %d of %d is taken", what, i, b.Len())
			}
		}
	}
	_, err := replicate.Restore(replicate.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)}, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes()[:b.Len()-20])), nil
	})
	if !errors.Is(err, replicate.ErrBadBackup) {
		t.Errorf("restore of half a backup: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused restore left %s", dir)
	}
}

// inflate returns what can be read of a gzip stream.
func inflate(b []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	all, err := io.ReadAll(z)
	if err != nil {
		return nil
	}
	return all
}

func FuzzVerifyBackup(f *testing.F) {
	db := openIn(f, filepath.Join(f.TempDir(), "a"))
	putAll(f, db, "v", "k/1")
	var b bytes.Buffer
	if _, err := db.Backup(f.Context(), &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		began := time.Now()
		if _, err := replicate.VerifyBackup(io.LimitReader(bytes.NewReader(in), 1<<20)); err != nil && !errors.Is(err, replicate.ErrBadBackup) && !errors.Is(err, replicate.ErrNewer) {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
