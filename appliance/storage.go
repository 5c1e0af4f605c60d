package appliance

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"wuamesh/replicate"
)

// A Storage is what the settings page says of this node's folder. Keys that
// the configuration file sets win over it.
type Storage struct {
	CleanupKBs bool   `json:"cleanup_kbs"` // every night, what no host needs
	Placement  string `json:"placement"`   // "all" or "local"
	Quota      int64  `json:"quota"`       // bytes; 0 is as much as the disk has
	DiskFloor  int64  `json:"disk_floor"`  // bytes that stay free
	Copies     int    `json:"copies"`      // nodes that keep what hosts need, quota or not
}

// Storage returns what holds now, and which keys the configuration file has
// decided.
func (a *Appliance) Storage() (now Storage, decided map[string]bool) {
	return storageOf(*a.config()), a.cfg.given
}

func storageOf(c Config) Storage {
	return Storage{c.CleanupKBs, c.Placement, int64(c.Quota), int64(c.DiskFloor), c.Copies}
}

// with returns c with what s says about keys that the file leaves open,
// checked.
func (s Storage) with(c Config) (Config, error) {
	settle(c.given, "cleanup_kbs", &c.CleanupKBs, s.CleanupKBs)
	settle(c.given, "placement", &c.Placement, s.Placement)
	settle(c.given, "quota", &c.Quota, Size(s.Quota))
	settle(c.given, "disk_floor", &c.DiskFloor, Size(s.DiskFloor))
	settle(c.given, "copies", &c.Copies, s.Copies)
	return c, c.Validate()
}

// settle sets a key that the file has not.
func settle[T any](given map[string]bool, key string, to *T, v T) {
	if !given[key] {
		*to = v
	}
}

// SetStorage keeps what the folder is to hold and goes by it at once. It is
// checked before anything changes.
func (a *Appliance) SetStorage(ctx context.Context, by Actor, s Storage) error {
	if err := by.need(Owner); err != nil {
		return err
	}
	was := storageOf(*a.config())
	next, err := s.with(*a.config())
	if err != nil {
		return err
	}
	err = a.db.Update(ctx, func(tx *replicate.Tx) error {
		return errors.Join(storages.put(tx, "node", s), a.audit(tx, by, "set storage", "node "+next.Name, was.String(), storageOf(next).String()))
	})
	if err != nil {
		return err
	}
	_, err = a.change(ctx, by, next)
	return err
}

// String says it for the audit log.
func (s Storage) String() string {
	quota := "none"
	if s.Quota > 0 {
		quota = bytesText(s.Quota)
	}
	return fmt.Sprintf("nightly cleaning %s, keeps %s, quota %s, %s stay free, %s", or(s.CleanupKBs, "on", "off"), s.Placement, quota, bytesText(s.DiskFloor), things(s.Copies, "copy", "copies"))
}

// A ConfigKey is one key of the configuration as it holds.
type ConfigKey struct {
	Key   string `json:"key"`
	Value string `json:"value"` // without passwords
	From  string `json:"from"`  // "file", "pages", "start" or "default"
}

// ConfigKeys lists the configuration that the node goes by, and where each
// value is from.
func (a *Appliance) ConfigKeys() (list []ConfigKey) {
	now := *a.config()
	is, def := reflect.ValueOf(now), reflect.ValueOf(DefaultConfig())
	told := slices.Concat(tagsOf[Answers](), tagsOf[Storage]())
	for f := range reflect.TypeFor[Config]().Fields() {
		key := f.Tag.Get("toml")
		if key == "" || key == "-" {
			continue
		}
		v, from := is.FieldByIndex(f.Index), "start"
		switch {
		case now.given[key]:
			from = "file"
		case reflect.DeepEqual(v.Interface(), def.FieldByIndex(f.Index).Interface()):
			from = "default"
		case slices.Contains(told, key):
			from = "pages"
		}
		list = append(list, ConfigKey{key, configText(key, v.Interface()), from})
	}
	return list
}

// tagsOf are the names of a struct's fields in JSON; those of what pages are
// told are keys of the configuration.
func tagsOf[T any]() (list []string) {
	for f := range reflect.TypeFor[T]().Fields() {
		list = append(list, f.Tag.Get("json"))
	}
	return list
}

func configText(key string, v any) string {
	switch v := v.(type) {
	case []string:
		return strings.Join(v, ", ")
	case Size:
		return v.String()
	}
	if key == "proxy" && v != "" {
		return WithoutPassword(v.(string))
	}
	return fmt.Sprint(v)
}
