package cli_test

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"wuamesh/appliance"
)

// TestBackupAndRestore types what an admin would: back a running node up,
// break the file, restore the good one into another directory.
func TestBackupAndRestore(t *testing.T) {
	data := node(t)
	file := filepath.Join(t.TempDir(), "rns-01.wuamesh")
	expect := func(want string, code int, args ...string) {
		t.Helper()
		out, err, got := run(t, args...)
		if got != code || !strings.Contains(out+err, want) {
			t.Errorf("wuamesh %s: exit %d, want %d and %q:\n%s%s", strings.Join(args, " "), got, code, want, out, err)
		}
	}
	expect("is a whole backup", 0, "backup", file, "--data", data)
	expect("is a whole backup", 0, "backup", "--verify", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read the node's keys: %v, %v", info.Mode(), err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(t.TempDir(), "half")
	os.WriteFile(half, b[:len(b)/2], 0o600)
	expect("is damaged or no backup", 1, "backup", "--verify", half)
	expect("is damaged or no backup", 1, "restore", half, "--data", t.TempDir())
	expect("The node runs", 1, "restore", file, "--data", data)
	other := filepath.Join(t.TempDir(), "data")
	expect("Restored node", 0, "restore", file, "--data", other)
	expect("There is data in", 1, "restore", file, "--data", other)
	expect("is in "+other, 0, "restore", file, "--data", other, "--replace")

	cfg := appliance.DevConfig()
	cfg.Data, cfg.Folder = other, filepath.Join(t.TempDir(), "waptwua")
	cfg.ListenHTTPS, cfg.ListenHTTP = "127.0.0.1:0", "127.0.0.1:0"
	n, err := appliance.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := n.Package(t.Context(), "baseline"); err != nil || p.Name != "baseline" {
		t.Errorf("the restored node has lost its rule package: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	// A store that a newer version wrote is refused with a sentence, and left
	// as it is.
	writeNewer := func(schema uint64) (was uint64) {
		t.Helper()
		kv, err := badger.Open(badger.DefaultOptions(filepath.Join(other, "store")).WithLogger(nil))
		if err != nil {
			t.Fatal(err)
		}
		err = kv.Update(func(txn *badger.Txn) error {
			item, err := txn.Get([]byte("m/schema"))
			if err != nil {
				return err
			}
			b, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			was = binary.BigEndian.Uint64(b)
			return txn.Set([]byte("m/schema"), binary.BigEndian.AppendUint64(nil, schema))
		})
		if err := errors.Join(err, kv.Close()); err != nil {
			t.Fatal(err)
		}
		return was
	}
	was := writeNewer(99)
	expect("was written by a newer version of wuamesh", 1, "init", "--data", other)
	if left := writeNewer(was); left != 99 {
		t.Errorf("the refused store has schema %d now", left)
	}
	if n, err = appliance.Open(cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Package(t.Context(), "baseline"); err != nil {
		t.Errorf("after the version that wrote it came back: %v", err)
	}
}
