package replicate_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"wuamesh/replicate"
)

func open(t testing.TB, dir string) *replicate.DB {
	t.Helper()
	db, err := replicate.Open(replicate.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func put(t testing.TB, db *replicate.DB, key, value string) {
	t.Helper()
	if err := db.Update(t.Context(), func(tx *replicate.Tx) error { return tx.Put(key, []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

// dump is every live record and its version, as text.
func dump(t testing.TB, db *replicate.DB) string {
	t.Helper()
	var b strings.Builder
	err := db.View(t.Context(), func(tx *replicate.Tx) error {
		for r, err := range tx.Scan("") {
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s=%s %d %s\n", r.Key, r.Value, r.Version.Clock, r.Version.Writer)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	db := open(t, t.TempDir())
	put(t, db, "a/1", "one")
	boom := errors.New("boom")
	err := db.Update(t.Context(), func(tx *replicate.Tx) error {
		if err := tx.Put("a/2", []byte("two")); err != nil {
			return err
		}
		if err := tx.Delete("a/1"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("Update = %v, want the function's own error", err)
	}
	func() {
		defer func() {
			if recover() != "no" {
				t.Error("a panic in fn did not reach the caller of Update")
			}
		}()
		db.Update(t.Context(), func(tx *replicate.Tx) error { tx.Put("a/3", nil); panic("no") })
	}()
	if got := dump(t, db); !strings.HasPrefix(got, "a/1=one ") || strings.Count(got, "\n") != 1 {
		t.Errorf("after a failed and a panicked update the store holds\n%s", got)
	}
}

func TestATransactionSeesItsOwnWrites(t *testing.T) {
	db := open(t, t.TempDir())
	put(t, db, "a/1", "one")
	put(t, db, "a/2", "two")
	err := db.Update(t.Context(), func(tx *replicate.Tx) error {
		tx.Put("a/3", []byte("three"))
		tx.Delete("a/1")
		tx.Local().Put("x", []byte("local"))
		if _, err := tx.Get("a/1"); !errors.Is(err, replicate.ErrNotFound) {
			t.Errorf("Get of a deleted record: %v", err)
		}
		var keys []string
		for r, err := range tx.Scan("a/") {
			if err != nil {
				return err
			}
			for range tx.Scan("a/") { // scans nest
			}
			keys = append(keys, r.Key+"="+string(r.Value))
		}
		if got := strings.Join(keys, " "); got != "a/2=two a/3=three" {
			t.Errorf("Scan in the transaction: %s", got)
		}
		v, err := tx.Local().Get("x")
		if string(v) != "local" {
			t.Errorf("Local().Get = %q, %v", v, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.View(t.Context(), func(tx *replicate.Tx) error { return tx.Put("a/9", nil) }); !errors.Is(err, replicate.ErrReadOnly) {
		t.Errorf("Put in a View = %v", err)
	}
}

func TestRefusedKeysAndValues(t *testing.T) {
	db := open(t, t.TempDir())
	for _, key := range []string{"", strings.Repeat("k", 513), "a\nb", "a\xff"} {
		err := db.Update(t.Context(), func(tx *replicate.Tx) error { return tx.Put(key, nil) })
		if !errors.Is(err, replicate.ErrBadKey) {
			t.Errorf("Put(%.10q) = %v", key, err)
		}
	}
	err := db.Update(t.Context(), func(tx *replicate.Tx) error { return tx.Put("a", make([]byte, replicate.MaxValue+1)) })
	if !errors.Is(err, replicate.ErrTooLarge) {
		t.Errorf("an overlong value: %v", err)
	}
	put(t, db, "large", strings.Repeat("x", replicate.MaxValue))
}

// TestFollowersMissNothing has 64 writers and a follower that begins in the
// middle: it ends up with what the store holds.
func TestFollowersMissNothing(t *testing.T) {
	db := open(t, t.TempDir())
	seen := map[string]string{}
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := range 20 {
				key := fmt.Sprintf("k/%d", (w*7+i)%100)
				err := db.Update(context.Background(), func(tx *replicate.Tx) error {
					if i%5 == 4 {
						return tx.Delete(key)
					}
					return tx.Put(key, fmt.Appendf(nil, "%d.%d", w, i))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := db.Follow(func(list []replicate.Record) {
		for _, r := range list {
			if delete(seen, r.Key); !r.Deleted {
				seen[r.Key] = string(r.Value)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	got := map[string]string{}
	db.View(t.Context(), func(tx *replicate.Tx) error {
		for r, err := range tx.Scan("k/") {
			if err != nil {
				t.Error(err)
			}
			got[r.Key] = string(r.Value)
		}
		return nil
	})
	if fmt.Sprint(got) != fmt.Sprint(seen) {
		t.Errorf("the follower has\n%v, the store\n%v", seen, got)
	}
}

func TestSecondOpenSaysWhy(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := replicate.Open(replicate.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, replicate.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Open of a store in use = %v", err)
	}
}

func TestIdentityStaysAndEpochChanges(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	node := db.NodeID()
	put(t, db, "a", "1")
	first := dump(t, db)
	db.Close()
	db = open(t, dir)
	if db.NodeID() != node {
		t.Errorf("identity %s became %s", node, db.NodeID())
	}
	if again := dump(t, db); again != first {
		t.Errorf("reopened, %q became %q", first, again)
	}
	put(t, db, "b", "2")
	lines := strings.Fields(dump(t, db))
	if lines[2] == lines[5] || lines[1] >= lines[4] {
		t.Errorf("the second run wrote with the first's epoch or an older clock: %v", lines)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Update(t.Context(), func(*replicate.Tx) error { return nil }); !errors.Is(err, replicate.ErrClosed) {
		t.Errorf("Update after Close = %v", err)
	}
}

// TestAcknowledgedSurvivesKill kills a process that acknowledges its writes on
// standard output, in the middle of them, and looks for every one.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	if dir := os.Getenv("REPLICATE_TEST_CHILD"); dir != "" {
		writeUntilKilled(t, dir)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestAcknowledgedSurvivesKill$")
	cmd.Env = append(os.Environ(), "REPLICATE_TEST_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if acked = append(acked, s.Text()); len(acked) == 500 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if len(acked) < 500 {
		t.Fatalf("the child acknowledged only %d writes", len(acked))
	}
	db := open(t, dir)
	db.View(t.Context(), func(tx *replicate.Tx) error {
		for _, key := range acked {
			if v, err := tx.Get(key); string(v) != key {
				t.Errorf("acknowledged %s is gone: %q, %v", key, v, err)
			}
		}
		return nil
	})
}

func writeUntilKilled(t *testing.T, dir string) {
	db := open(t, dir)
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("k/%d/%d", w, i)
				if db.Update(context.Background(), func(tx *replicate.Tx) error { return tx.Put(key, []byte(key)) }) != nil {
					return
				}
				mu.Lock()
				fmt.Println(key)
				mu.Unlock()
			}
		}()
	}
	select {}
}
