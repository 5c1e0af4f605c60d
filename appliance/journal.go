package appliance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// LogHandler returns what writes the log: to systemd's journal with a field
// for every key when w is connected to it, as text to w otherwise.
func LogHandler(w io.Writer, level slog.Leveler) slog.Handler {
	if ok, err := journal.StderrIsJournalStream(); err == nil && ok && journal.Enabled() {
		return &journalHandler{level: level, send: journal.Send}
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}

// A journalHandler writes records to the journal: the message with its keys
// for people, and each key as WUAMESH_KEY for journalctl to match.
type journalHandler struct {
	send  func(text string, p journal.Priority, fields map[string]string) error
	level slog.Leveler
	attrs []slog.Attr // their keys have the names of their groups
	group string
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *journalHandler) WithAttrs(list []slog.Attr) slog.Handler {
	next := *h
	next.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range list {
		next.attrs = append(next.attrs, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.group += name + "."
	return &next
}

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	text, fields := h.entry(r)
	return h.send(text, priority(r.Level), fields)
}

// entry is what a record says to people and to journalctl.
func (h *journalHandler) entry(r slog.Record) (text string, fields map[string]string) {
	var b strings.Builder
	b.WriteString(r.Message)
	fields = map[string]string{}
	add := func(key string, v slog.Value) {
		value := v.Resolve().String()
		fields["WUAMESH_"+fieldName(key)] = value
		if key == "part" {
			return // says where, which people rarely ask
		}
		if strings.ContainsAny(value, " \"=\n") || value == "" {
			value = fmt.Sprintf("%q", value)
		}
		b.WriteString(" " + key + "=" + value)
	}
	for _, a := range h.attrs {
		add(a.Key, a.Value)
	}
	r.Attrs(func(a slog.Attr) bool {
		add(h.group+a.Key, a.Value)
		return true
	})
	return b.String(), fields
}

// fieldName turns a key into what the journal takes: capitals, digits and
// underscores (systemd.journal-fields(7)).
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		default:
			return '_'
		}
	}, key)
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	default:
		return journal.PriDebug
	}
}
