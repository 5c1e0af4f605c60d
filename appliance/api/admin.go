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
	}
}

func adminsOf(c call) (Admins, error) {
	list, err := c.node.Admins(c.Context())
	return Admins{list}, err
}
