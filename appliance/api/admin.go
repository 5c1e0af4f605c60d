package api

import "wuamesh/appliance"

type (
	// Admins answers GET admins, by name.
	Admins struct {
		Admins []appliance.AdminRow `json:"admins"`
	}
	// AdminEdit is the body of PUT admins/{name}.
	AdminEdit struct {
		Role     appliance.Role `json:"role"`
		Password string         `json:"password,omitempty"` // of an admin that there is, empty leaves it
	}
	// Sessions answers GET sessions, those that were seen last first.
	Sessions struct {
		Sessions []appliance.SessionRow `json:"sessions"`
	}
	// Ended answers DELETE sessions.
	Ended struct {
		Ended int `json:"ended"`
	}
)

// admins are the routes about who may log in.
func admins() []route {
	return []route{
		{method: "GET", path: "admins", summary: "Who may log in, and what they may do", role: appliance.Viewer, answer: Admins{},
			do: func(c call) (any, error) { return adminsOf(c) }},
		{method: "PUT", path: "admins/{name}", summary: "Make an admin, or change role and password of one, which ends their sessions", role: appliance.Owner, body: AdminEdit{}, answer: Admins{},
			do: func(c call) (any, error) {
				var e AdminEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				if err := c.node.PutAdmin(c.Context(), c.actor, c.PathValue("name"), e.Role, e.Password); err != nil {
					return nil, err
				}
				return adminsOf(c)
			}},
		{method: "DELETE", path: "admins/{name}", summary: "Delete an admin, which ends their sessions", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.DeleteAdmin(c.Context(), c.actor, c.PathValue("name")) }},
		{method: "GET", path: "sessions", summary: "Who is logged in on the pages of this node", role: appliance.Owner, answer: Sessions{},
			do: func(c call) (any, error) {
				list, err := c.node.Sessions(c.Context(), c.actor)
				return Sessions{list}, err
			}},
		{method: "DELETE", path: "sessions", summary: "End all sessions of this node, or those of one admin", role: appliance.Owner, answer: Ended{},
			query: []param{{name: "admin", doc: "only those of this admin"}},
			do: func(c call) (any, error) {
				n, err := c.node.EndSessions(c.Context(), c.actor, appliance.SessionChoice{Admin: c.URL.Query().Get("admin")})
				return Ended{n}, err
			}},
		{method: "DELETE", path: "sessions/{id}", summary: "End one session of this node", role: appliance.Owner, answer: Ended{},
			do: func(c call) (any, error) {
				n, err := c.node.EndSessions(c.Context(), c.actor, appliance.SessionChoice{ID: c.PathValue("id")})
				return Ended{n}, err
			}},
	}
}

func adminsOf(c call) (Admins, error) {
	list, err := c.node.Admins(c.Context())
	return Admins{list}, err
}
