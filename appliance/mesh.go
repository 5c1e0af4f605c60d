package appliance

import (
	"context"
	"crypto/rand"
	"fmt"

	"wuamesh/replicate"
)

// openMembers takes part in gossip, unless the configuration keeps the node
// out. Key and label are the mesh's and are made at the first start.
func (a *Appliance) openMembers() (*replicate.Members, error) {
	if a.cfg.ListenMesh == "" {
		return nil, nil
	}
	var key, label []byte
	err := a.db.Update(context.Background(), func(tx *replicate.Tx) error {
		for name, to := range map[string]*[]byte{"gossip-key": &key, "mesh-label": &label} {
			v, ok, err := secrets.find(tx, name)
			if err != nil {
				return err
			}
			if !ok {
				v = []byte(rand.Text() + rand.Text())[:32]
				if err := secrets.put(tx, name, v); err != nil {
					return err
				}
			}
			*to = v
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the mesh's keys: %w", err)
	}
	m, err := replicate.OpenMembers(replicate.MembersOptions{
		NodeID: a.db.NodeID(), Addr: a.cfg.ListenMesh, Label: string(label), Key: key,
		Known: func() []string { return nil }, // joining is the mesh's
		Log:   a.log,
	})
	if err != nil {
		return nil, &Problem{Kind: Conflict, Msg: upper(err.Error()) + ".", Hint: "Set listen_mesh to another port, or to \"\" for a node on its own.", Err: err}
	}
	return m, nil
}
