package ui

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// events tells a page that something it shows may have changed, by topic; the
// page then fetches itself anew and replaces its live regions. The stream
// ends with the session.
func (u *UI) events(w http.ResponseWriter, r *http.Request) {
	if _, _, err := u.node.Session(r.Context(), u.session(r), address(r)); err != nil {
		http.Error(w, "Log in first.", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	changes := u.node.Watch(r.Context())
	beat := time.NewTicker(25 * time.Second)
	defer beat.Stop()
	text := "retry: 3000\n\n"
	for {
		if _, err := fmt.Fprint(w, text); err != nil || rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-u.node.Stopping():
			return
		case topics := <-changes:
			text = "data: " + strings.Join(topics, " ") + "\n\n"
		case <-beat.C:
			if _, _, err := u.node.Session(r.Context(), u.session(r), address(r)); err != nil {
				return
			}
			text = ": here\n\n"
		}
	}
}
