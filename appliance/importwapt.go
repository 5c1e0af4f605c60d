package appliance

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"wuamesh/appliance/microsoft"
)

// An Imported says what was taken over from a WAPT server.
type Imported struct {
	From     string            `json:"from"`     // its folder of update files
	Settings map[string]string `json:"settings"` // keys of wuamesh.toml that its waptserver.ini decides
	Kept     []string          `json:"kept"`     // of them, those the file already sets otherwise
	Adopted  int               `json:"adopted"`  // files whose digest is right
	Bytes    int64             `json:"bytes"`    // of them
	InPlace  bool              `json:"in_place"` // the folder is the node's own: nothing moved
	Wrong    []string          `json:"wrong"`    // files that are not what their name says; left where they are
	Unknown  []string          `json:"unknown"`  // files whose name has no digest; left where they are
	Remarks  []string          `json:"remarks"`  // what an admin should know
}

// maxINI bounds waptserver.ini; real ones have some dozen lines.
const maxINI = 1 << 20

// ImportWAPT takes over what matters of a WAPT server on this machine: the
// settings of its waptserver.ini (http_proxy, cleanup_kbs, waptwua_folder,
// wapt_folder) into the configuration file at config, and the files of its
// folder into the node's, verified by the SHA-1 in their names, and its scan
// cab. A running node finds and verifies them again by itself. tell is called after every file.
// Nothing of WAPT's is changed; with dry nothing at all is.
func ImportWAPT(ctx context.Context, ini, config string, cfg Config, dry bool, tell func(done, of int)) (im Imported, err error) {
	keys, err := readWAPT(ini)
	if err != nil {
		return im, err
	}
	im.Settings = settingsOf(keys, cfg, &im)
	im.From = folderOf(keys)
	if im.Kept, err = rewriteConfig(config, im.Settings, cfg.given, dry); err != nil {
		return im, err
	}
	err = im.adopt(ctx, cfg.Folder, dry, tell)
	return im, err
}

// folderOf is where a WAPT server keeps update files: as configured, else
// beside its repository, else where Debian's package of it does.
func folderOf(keys map[string]string) string {
	switch {
	case keys["waptwua_folder"] != "":
		return keys["waptwua_folder"]
	case keys["wapt_folder"] != "":
		return strings.TrimRight(keys["wapt_folder"], "/") + "wua"
	default:
		return "/var/www/waptwua"
	}
}

// readWAPT reads section [options] of waptserver.ini. Other keys are WAPT's
// own business.
func readWAPT(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Problem{Kind: Invalid, Msg: "There is no " + path + ".", Hint: "Name the waptserver.ini of the WAPT server with --ini; it is usually /opt/wapt/conf/waptserver.ini.", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("read WAPT's configuration: %w", err)
	}
	defer f.Close()
	return parseWAPT(io.LimitReader(f, maxINI))
}

func parseWAPT(r io.Reader) (map[string]string, error) {
	keys, section := map[string]string{}, ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.ContainsAny(line[:1], "#;") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = strings.ToLower(strings.Trim(line, "[] "))
			continue
		}
		at := strings.IndexAny(line, "=:") // as Python's ConfigParser does
		if at < 0 || section != "options" {
			continue
		}
		keys[strings.ToLower(strings.TrimSpace(line[:at]))] = strings.TrimSpace(line[at+1:])
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read WAPT's configuration: %w", err)
	}
	return keys, nil
}

// settingsOf turns WAPT's keys into lines of wuamesh.toml.
func settingsOf(keys map[string]string, cfg Config, im *Imported) map[string]string {
	set := map[string]string{}
	if proxy := keys["http_proxy"]; proxy != "" {
		if !strings.Contains(proxy, "://") {
			proxy = "http://" + proxy
		}
		cfg.Proxy = proxy
		if _, err := newSource(cfg, slog.New(slog.DiscardHandler)); err != nil || strings.ContainsAny(proxy, "\"\\") {
			im.Remarks = append(im.Remarks, "http_proxy is no address of a proxy such as http://proxy:3128, and is left out.")
		} else {
			set["proxy"] = strconv.Quote(proxy)
		}
	}
	switch strings.ToLower(keys["cleanup_kbs"]) {
	case "":
	case "true", "1", "yes", "on":
		set["cleanup_kbs"] = "true"
	case "false", "0", "no", "off":
		set["cleanup_kbs"] = "false"
	default:
		im.Remarks = append(im.Remarks, fmt.Sprintf("cleanup_kbs = %s is neither yes nor no and is left out.", keys["cleanup_kbs"]))
	}
	return set
}

// rewriteConfig sets keys in the configuration file, in the places where they
// stand commented out, and keeps the file before as .before-import. Keys that
// the file sets already stay as they are and are returned.
func rewriteConfig(path string, set map[string]string, given map[string]bool, dry bool) (kept []string, err error) {
	for key := range set {
		if given[key] {
			kept = append(kept, key)
		}
	}
	if len(set) == len(kept) || dry {
		return kept, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return kept, fmt.Errorf("edit the configuration: %w", err)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return kept, fmt.Errorf("edit the configuration: %w", err)
	}
	text := string(old)
	for key, value := range set {
		if given[key] {
			continue
		}
		line := key + " = " + value
		if at := regexp.MustCompile(`(?m)^#` + key + ` = .*$`).FindStringIndex(text); at != nil {
			text = text[:at[0]] + line + text[at[1]:]
		} else {
			text = strings.TrimRight(text, "\n") + "\n\n# Taken over from waptserver.ini.\n" + line + "\n"
		}
	}
	if err := os.WriteFile(path+".before-import", old, info.Mode().Perm()); err != nil {
		return kept, fmt.Errorf("keep the configuration: %w", err)
	}
	// In place: owner and mode are the package's.
	if err := os.WriteFile(path, []byte(text), info.Mode().Perm()); err != nil {
		return kept, fmt.Errorf("edit the configuration: %w", err)
	}
	return kept, nil
}

// adopt brings the files over, each read whole once.
func (im *Imported) adopt(ctx context.Context, folder string, dry bool, tell func(done, of int)) error {
	list, err := os.ReadDir(im.From)
	if errors.Is(err, fs.ErrNotExist) {
		im.Remarks = append(im.Remarks, "There is no folder "+im.From+".")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read WAPT's folder: %w", err)
	}
	from, err1 := os.Stat(im.From)
	to, err2 := os.Stat(folder)
	im.InPlace = err1 == nil && err2 == nil && os.SameFile(from, to)
	if !im.InPlace && !dry {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make the folder: %w", err)
		}
	}
	for i, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Type().IsRegular() {
			if err := im.adoptFile(e.Name(), folder, dry); err != nil {
				return err
			}
		}
		tell(i+1, len(list))
	}
	return nil
}

func (im *Imported) adoptFile(name, folder string, dry bool) error {
	if name == microsoft.ScanCabName {
		return im.adoptCab(folder, dry)
	}
	_, sum, err := microsoft.NameFromURL(name)
	if err != nil || sum == nil {
		im.Unknown = append(im.Unknown, name)
		return nil
	}
	path := filepath.Join(im.From, name)
	got, size, err := sha1Of(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got != hex.EncodeToString(sum) {
		im.Wrong = append(im.Wrong, name)
		return nil
	}
	im.Adopted++
	im.Bytes += size
	if im.InPlace || dry {
		return nil
	}
	return bring(path, filepath.Join(folder, name))
}

// adoptCab brings the scan cab over. Its name says nothing of what it is, its
// signature does.
func (im *Imported) adoptCab(folder string, dry bool) error {
	im.Remarks = append(im.Remarks, "The node serves the scan cab of the WAPT server once it has verified its signature, until Microsoft has a newer one.")
	if im.InPlace || dry {
		return nil
	}
	return bring(filepath.Join(im.From, microsoft.ScanCabName), filepath.Join(folder, microsoft.ScanCabName))
}

func sha1Of(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha1.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// bring links a file where that is possible, and copies it otherwise. One
// that is there already stays.
func bring(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	if err := os.Link(from, to); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".import-*")
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("copy %s: %w", from, err), os.Remove(out.Name()))
	}
	return nil
}
