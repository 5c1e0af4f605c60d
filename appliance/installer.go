package appliance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"wuamesh/agentproto"
)

// An Installer is the agent's, as this node serves it.
type Installer struct {
	URL    string `json:"url"`    // over plain http: whoever fetches it compares the digest
	SHA256 string `json:"sha256"` // hexadecimal
	Bytes  int64  `json:"bytes"`
}

// maxInstaller bounds what is read as the agent's installer; it has some
// megabytes.
const maxInstaller = 64 << 20

// AgentInstaller says which installer of the agent the node serves. A node
// without one answers a [Problem].
func (a *Appliance) AgentInstaller() (Installer, error) {
	content, _, err := a.readInstaller()
	if err != nil {
		return Installer{}, err
	}
	sum := sha256.Sum256(content)
	return Installer{URL: "http://" + reachable(a.http.Addr()) + agentproto.PathInstaller, SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(content))}, nil
}

func (a *Appliance) readInstaller() (content []byte, modified time.Time, err error) {
	path := a.config().AgentMSI
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, modified, &Problem{Kind: NotFound, Msg: "This node has no installer of the agent.", Hint: fmt.Sprintf("The package wuamesh brings it to %s; agent_msi in the configuration names another place.", path), Err: err}
	}
	if err != nil {
		return nil, modified, fmt.Errorf("read the agent's installer: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, modified, fmt.Errorf("read the agent's installer: %w", err)
	}
	content, err = io.ReadAll(io.LimitReader(f, maxInstaller))
	if err != nil {
		return nil, modified, fmt.Errorf("read the agent's installer: %w", err)
	}
	return content, fi.ModTime(), nil
}

// serveInstaller sends the agent's installer to anyone: there is no secret in
// it.
func (a *Appliance) serveInstaller(w http.ResponseWriter, r *http.Request) {
	content, modified, err := a.readInstaller()
	if p, ok := AsProblem(err); ok {
		http.Error(w, p.Msg, http.StatusNotFound)
		return
	}
	if err != nil {
		a.log.WarnContext(r.Context(), "the agent's installer cannot be served", "err", err)
		http.Error(w, "The agent's installer cannot be read.", http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(content)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	w.Header().Set("Content-Type", contentType(agentproto.PathInstaller))
	w.Header().Set("Content-Disposition", `attachment; filename="wuamesh-agent.msi"`)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", modified, bytes.NewReader(content))
}
