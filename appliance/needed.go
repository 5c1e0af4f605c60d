package appliance

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"wuamesh/agentproto/rules"
)

// A FileCoverage is which nodes have the files that hosts wait for.
type FileCoverage struct {
	Nodes []CoveringNode `json:"nodes"` // of the mesh, by name; this node alone without one
	Files []NeededFile   `json:"files"` // those that most hosts wait for first
	All   int            `json:"all"`   // files that hosts wait for
}

// A CoveringNode is a node and how many of the files it has.
type CoveringNode struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Site  string `json:"site"`
	Self  bool   `json:"self,omitempty"` // the one that answers
	Files int    `json:"files"`          // of all that hosts wait for
}

// A NeededFile is a file that hosts wait for.
type NeededFile struct {
	Name   string         `json:"name"`
	Update rules.UpdateID `json:"update"` // one that it is of
	Title  string         `json:"title"`
	Size   int64          `json:"size"`
	Hosts  int            `json:"hosts"` // that wait for it
	Nodes  []string       `json:"nodes"` // ids of those that say they have it
	// Percent is how much of it is here, while it comes to the node that answers.
	Percent int  `json:"percent,omitempty"`
	Coming  bool `json:"coming,omitempty"` // to the node that answers
}

// Has says whether a node has the file.
func (f NeededFile) Has(node string) bool { return slices.Contains(f.Nodes, node) }

// NeededFiles says which nodes have the files that hosts wait for, as the nodes
// themselves said last; at most limit files, 0 for all.
func (a *Appliance) NeededFiles(ctx context.Context, limit int) (FileCoverage, error) {
	c := FileCoverage{Files: []NeededFile{}}
	nodes, err := a.Nodes(ctx)
	if err != nil {
		return c, err
	}
	self := a.db.NodeID()
	for _, n := range nodes {
		if n.Removed.IsZero() {
			c.Nodes = append(c.Nodes, CoveringNode{ID: n.ID, Name: n.Name, Site: n.Site, Self: n.Self})
		}
	}
	if len(c.Nodes) == 0 {
		c.Nodes = []CoveringNode{{ID: self, Name: a.NodeName(), Site: a.config().Site, Self: true}}
	}
	slices.SortFunc(c.Nodes, func(x, y CoveringNode) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID))
	})
	wanted := a.cat.wanted()
	c.All = len(wanted)
	for i, w := range wanted {
		f := NeededFile{Name: w.Name, Update: w.update, Title: w.title, Size: w.Size, Hosts: w.hosts, Nodes: []string{}}
		others, here := a.folder.share.others(w.Name), a.folder.state(w.Name)
		for n := range c.Nodes {
			node := &c.Nodes[n]
			has := node.ID == self && here.State == Downloaded
			if _, there := slices.BinarySearch(others, node.ID); has || there {
				node.Files++
				f.Nodes = append(f.Nodes, node.ID)
			}
		}
		if limit == 0 || i < limit {
			f.Coming, f.Percent = here.State == Downloading, here.Percent
			c.Files = append(c.Files, f)
		}
	}
	return c, nil
}
