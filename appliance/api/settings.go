package api

import "wuamesh/appliance"

// Settings answers GET settings: what the pages were told and the
// configuration file leaves open, and every key as it holds.
type Settings struct {
	Node    appliance.Answers     `json:"node"` // the proxy without its password
	Storage appliance.Storage     `json:"storage"`
	Keys    []appliance.ConfigKey `json:"keys"`

	Compliance appliance.ComplianceRule `json:"compliance"` // of the whole mesh
}

// settings are the routes about what the node and the mesh are told.
func settings() []route {
	return []route{
		{method: "GET", path: "settings", summary: "What this node and the mesh go by, and where each value is from", role: appliance.Viewer, answer: Settings{},
			do: func(c call) (any, error) { return settingsOf(c), nil }},
		{method: "PUT", path: "settings/node", summary: "Name, site and way to Microsoft of this node, where its file leaves them open", role: appliance.Owner, body: appliance.Answers{}, answer: Settings{},
			do: func(c call) (any, error) {
				n, _ := c.node.Answers()
				if err := c.decode(&n); err != nil {
					return nil, err
				}
				if err := c.node.Answer(c.Context(), c.actor, n); err != nil {
					return nil, err
				}
				return settingsOf(c), nil
			}},
		{method: "PUT", path: "settings/storage", summary: "What the folder of this node keeps, where its file leaves that open", role: appliance.Owner, body: appliance.Storage{}, answer: Settings{},
			do: func(c call) (any, error) {
				s, _ := c.node.Storage()
				if err := c.decode(&s); err != nil {
					return nil, err
				}
				if err := c.node.SetStorage(c.Context(), c.actor, s); err != nil {
					return nil, err
				}
				return settingsOf(c), nil
			}},
		{method: "PUT", path: "settings/compliance", summary: "When hosts are compliant, on the whole mesh", role: appliance.Owner, body: appliance.ComplianceRule{}, answer: appliance.ComplianceRule{},
			do: func(c call) (any, error) {
				var r appliance.ComplianceRule
				if err := c.decode(&r); err != nil {
					return nil, err
				}
				if err := c.node.SetComplianceRule(c.Context(), c.actor, r); err != nil {
					return nil, err
				}
				return c.node.ComplianceRule(), nil
			}},
		{method: "POST", path: "settings/compliance/preview", summary: "How many hosts would be compliant by another rule; nothing is stored", role: appliance.Viewer, body: appliance.ComplianceRule{}, answer: appliance.CompliancePreview{},
			do: func(c call) (any, error) {
				var r appliance.ComplianceRule
				if err := c.decode(&r); err != nil {
					return nil, err
				}
				return c.node.PreviewCompliance(c.Context(), r)
			}},
	}
}

func settingsOf(c call) Settings {
	node, _ := c.node.Answers()
	node.Proxy = appliance.WithoutPassword(node.Proxy)
	storage, _ := c.node.Storage()
	return Settings{node, storage, c.node.ConfigKeys(), c.node.ComplianceRule()}
}
