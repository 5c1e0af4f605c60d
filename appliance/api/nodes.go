package api

import (
	"context"
	"net/http"

	"wuamesh/appliance"
)

type (
	// Nodes answers GET nodes.
	Nodes struct {
		Nodes []appliance.NodeRow `json:"nodes"`
	}
	// Founding is the body of POST mesh.
	Founding struct {
		Name string `json:"name,omitempty"`
		Site string `json:"site,omitempty"`
	}
	// Passphrase answers what makes a recovery passphrase; it is shown this once.
	Passphrase struct {
		Passphrase string `json:"passphrase"`
	}
	// Decision is the body of POST mesh/meetings/{id} and mesh/reviews/{id}.
	Decision struct {
		// Take makes the edit that does not hold, once more.
		Take bool `json:"take"`
	}
	// Joining is the body of POST mesh/join.
	Joining struct {
		Token string `json:"token"`
		Name  string `json:"name,omitempty"`
		Site  string `json:"site,omitempty"`
	}
)

// mesh are the routes about nodes.
func mesh() []route {
	return []route{
		{method: "GET", path: "nodes", summary: "The nodes of the mesh, as this one sees them", role: appliance.Viewer, answer: Nodes{},
			do: func(c call) (any, error) {
				list, err := c.node.Nodes(c.Context())
				return Nodes{list}, err
			}},
		{method: "GET", path: "mesh", summary: "The mesh as this node sees it: how far behind it may be, its nodes, who is connected to whom, what is wrong and what to do", role: appliance.Viewer, answer: appliance.MeshState{},
			do: func(c call) (any, error) { return c.node.Mesh(c.Context()) }},
		{method: "GET", path: "mesh/files", summary: "Which nodes have the files that hosts wait for, as the nodes said last; those that most hosts wait for first", role: appliance.Viewer, answer: appliance.FileCoverage{},
			query: []param{{name: "limit", doc: "at most so many files, 1 to 500; all when absent"}},
			do: func(c call) (any, error) {
				p, err := pageOf(c.URL.Query())
				if err != nil {
					return nil, err
				}
				return c.node.NeededFiles(c.Context(), p.Limit)
			}},
		{method: "DELETE", path: "nodes/{node}", summary: "Remove a node for good, and the certificates it gave; by name or id", role: appliance.Owner, answer: appliance.NodeRow{},
			query: []param{{name: "reason", doc: "kept with the removal"}},
			do: func(c call) (any, error) {
				return c.node.RemoveNode(c.Context(), c.actor, c.PathValue("node"), c.URL.Query().Get("reason"))
			}},
		{method: "POST", path: "mesh", summary: "Found a mesh with this node", role: appliance.Owner, body: Founding{}, answer: Passphrase{}, status: http.StatusCreated,
			do: func(c call) (any, error) {
				var f Founding
				if err := c.decode(&f); err != nil {
					return nil, err
				}
				p, err := c.node.Found(c.Context(), c.actor, f.Name, f.Site)
				return Passphrase{p}, err
			}},
		{method: "GET", path: "mesh/join", summary: "How far this node is on its way into a mesh", role: appliance.Viewer, answer: appliance.JoinState{},
			do: func(c call) (any, error) { return c.node.JoinState(c.Context()) }},
		{method: "POST", path: "mesh/join", summary: "Join a mesh with this bare node; the first copy comes after the answer", role: appliance.Owner, body: Joining{}, answer: appliance.JoinState{}, status: http.StatusAccepted,
			do: func(c call) (any, error) {
				var j Joining
				if err := c.decode(&j); err != nil {
					return nil, err
				}
				if err := c.node.Join(c.Context(), c.actor, appliance.JoinOptions{Token: j.Token, Name: j.Name, Site: j.Site}); err != nil {
					return nil, err
				}
				return c.node.JoinState(c.Context())
			}},
		{method: "GET", path: "mesh/meetings", summary: "Edits of two admins that met, and that nobody has looked at", role: appliance.Viewer, answer: []appliance.MeetingRow{},
			query: []param{{name: "object", doc: "only of this object, as the audit log names it"}},
			do:    func(c call) (any, error) { return c.node.Meetings(c.Context(), c.FormValue("object")) }},
		{method: "POST", path: "mesh/meetings/{id}", summary: "Keep what holds of two edits that met, or take the other", role: appliance.Owner, body: Decision{},
			do: func(c call) (any, error) { return c.decideBy(c.node.SettleMeeting) }},
		{method: "GET", path: "mesh/reviews", summary: "Changes that were made on this node while it was cut off for long, and wait for a decision", role: appliance.Viewer, answer: []appliance.ReviewRow{},
			do: func(c call) (any, error) { return c.node.Reviews(c.Context()) }},
		{method: "POST", path: "mesh/reviews/{id}", summary: "Make such a change after all, or discard it", role: appliance.Owner, body: Decision{},
			do: func(c call) (any, error) { return c.decideBy(c.node.Review) }},
		{method: "POST", path: "mesh/passphrase", summary: "Make a new recovery passphrase; the one before is worth nothing", role: appliance.Owner, answer: Passphrase{}, status: http.StatusCreated,
			do: func(c call) (any, error) {
				p, err := c.node.NewRecovery(c.Context(), c.actor)
				return Passphrase{p}, err
			}},
		{method: "POST", path: "mesh/anchor", summary: "Make this node an anchor, which can let nodes in", role: appliance.Owner, body: Passphrase{},
			do: func(c call) (any, error) {
				var p Passphrase
				if err := c.decode(&p); err != nil {
					return nil, err
				}
				return nil, c.node.BecomeAnchor(c.Context(), c.actor, p.Passphrase)
			}},
		{method: "DELETE", path: "mesh/anchor", summary: "Take the mesh's root key off this node", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.ResignAnchor(c.Context(), c.actor) }},
		{method: "POST", path: "mesh/gossip-key", summary: "Rotate the gossip key; the old one is understood for a day", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.RotateGossipKey(c.Context(), c.actor) }},
	}
}

// decideBy hands a decision about what {id} names to the node.
func (c call) decideBy(do func(context.Context, appliance.Actor, string, bool) error) (any, error) {
	var d Decision
	if err := c.decode(&d); err != nil {
		return nil, err
	}
	return nil, do(c.Context(), c.actor, c.PathValue("id"), d.Take)
}
