package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"wuamesh/appliance"
)

var backupCommand = Command{
	Name: "backup", Args: "FILE|-", Summary: "Back up the records and keys of a running node into a file, and check it",
	Example: "wuamesh backup /srv/backup/rns-01.wuamesh\nwuamesh backup - | ssh vault 'cat > rns-01.wuamesh'\nwuamesh backup --verify /srv/backup/rns-01.wuamesh",
	Flags: func(fs *flag.FlagSet) Runner {
		var t target
		t.flags(fs)
		verify := fs.Bool("verify", false, "only check that FILE is a whole backup")
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) != 1 {
				return usage("it takes a FILE, or - for the standard output")
			}
			if *verify {
				return t.tellBackup(s, args[0])
			}
			c, err := t.client(s)
			if err != nil {
				return err
			}
			if args[0] == "-" {
				return c.Stream(ctx, "backup", s.Out)
			}
			part := args[0] + ".part"
			f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("make the backup: %w", err)
			}
			err = errors.Join(c.Stream(ctx, "backup", f), f.Sync(), f.Close())
			if err == nil {
				_, err = appliance.VerifyBackup(part)
			}
			if err != nil {
				return errors.Join(err, os.Remove(part))
			}
			if err := os.Rename(part, args[0]); err != nil {
				return err
			}
			return t.tellBackup(s, args[0])
		}
	},
}

// tellBackup checks a backup and says what it is of.
func (t *target) tellBackup(s Streams, path string) error {
	info, err := appliance.VerifyBackup(path)
	if err != nil {
		return err
	}
	file, err := os.Stat(path)
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(s.Out, struct {
			appliance.BackupInfo
			Entries int64 `json:"entries"`
			Bytes   int64 `json:"bytes"`
		}{info, info.Entries, file.Size()})
	}
	fmt.Fprintf(s.Out, "%s is a whole backup: node %s, %s, %d entries, %s.\nIt holds the node's keys: keep it where only you can read it.\n",
		path, info.Node[:min(8, len(info.Node))], when(info.Made, ""), info.Entries, size(file.Size()))
	return nil
}

var restoreCommand = Command{
	Name: "restore", Args: "FILE", Summary: "Make the data of a stopped node what a backup says; it keeps its place in the mesh",
	Example: "systemctl stop wuamesh wuamesh-https.socket wuamesh-http.socket\nwuamesh restore /srv/backup/rns-01.wuamesh\nsystemctl start wuamesh-https.socket wuamesh-http.socket wuamesh",
	Flags: func(fs *flag.FlagSet) Runner {
		var from appliance.ConfigSource
		fs.StringVar(&from.Path, "config", "", "configuration `file`; default "+appliance.ConfigPath+", where it exists")
		fs.StringVar(&from.Data, "data", "", "`directory` to restore into, instead of the configuration's")
		replace := fs.Bool("replace", false, "move data that is there aside")
		return func(ctx context.Context, s Streams, args []string) error {
			if len(args) != 1 {
				return usage("it takes the FILE that wuamesh backup made")
			}
			cfg, err := from.Load()
			if err != nil {
				return err
			}
			info, aside, err := appliance.Restore(cfg, args[0], *replace, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			fmt.Fprintf(s.Out, "Restored node %s as of %s, %d entries, into %s.\n", info.Node[:min(8, len(info.Node))], when(info.Made, ""), info.Entries, cfg.Data)
			if aside != "" {
				fmt.Fprintf(s.Out, "What was there is in %s; delete it when all is well.\n", aside)
			}
			fmt.Fprintln(s.Out, "Start it now: systemctl start wuamesh-https.socket wuamesh-http.socket wuamesh. What it wrote since the backup comes back from its peers.")
			return nil
		}
	},
}
