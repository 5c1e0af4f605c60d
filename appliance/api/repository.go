package api

import (
	"net/http"

	"wuamesh/appliance"
)

type (
	// RepositoryRules answers GET repository-rules, in their order.
	RepositoryRules struct {
		Rules []appliance.RepositoryRule `json:"rules"`
	}
	// Place is the body of POST repository-rules/{id}/move.
	Place struct {
		Order int `json:"order"` // from 1
	}
)

// repository are the routes about repository rules.
func repository() []route {
	return []route{
		{method: "GET", path: "repository-rules", summary: "Repository rules, which choose the node for hosts, in their order", role: appliance.Viewer, answer: RepositoryRules{},
			do: func(c call) (any, error) {
				list, err := c.node.RepositoryRules(c.Context())
				return RepositoryRules{list}, err
			}},
		{method: "POST", path: "repository-rules", summary: "Add a repository rule after the others", role: appliance.Owner, body: appliance.RepositoryRuleEdit{}, answer: appliance.RepositoryRule{}, status: http.StatusCreated,
			do: func(c call) (any, error) {
				var e appliance.RepositoryRuleEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				return c.node.MakeRepositoryRule(c.Context(), c.actor, e)
			}},
		{method: "POST", path: "repository-rules/preview", summary: "Which hosts such a new rule would be for, and which would ask other nodes; nothing is stored", role: appliance.Viewer, body: appliance.RepositoryRuleEdit{}, answer: appliance.RepositoryPreview{},
			do: func(c call) (any, error) { return previewRepositoryRule(c, "") }},
		{method: "PUT", path: "repository-rules/{id}", summary: "Change a repository rule; it stays at its place", role: appliance.Owner, body: appliance.RepositoryRuleEdit{}, answer: appliance.RepositoryRule{},
			do: func(c call) (any, error) {
				var e appliance.RepositoryRuleEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				return c.node.SetRepositoryRule(c.Context(), c.actor, c.PathValue("id"), e)
			}},
		{method: "POST", path: "repository-rules/{id}/preview", summary: "The same of a changed rule", role: appliance.Viewer, body: appliance.RepositoryRuleEdit{}, answer: appliance.RepositoryPreview{},
			do: func(c call) (any, error) { return previewRepositoryRule(c, c.PathValue("id")) }},
		{method: "POST", path: "repository-rules/{id}/move", summary: "Put a repository rule at another place of the order", role: appliance.Owner, body: Place{}, answer: RepositoryRules{},
			do: func(c call) (any, error) {
				var p Place
				if err := c.decode(&p); err != nil {
					return nil, err
				}
				if err := c.node.MoveRepositoryRule(c.Context(), c.actor, c.PathValue("id"), p.Order); err != nil {
					return nil, err
				}
				list, err := c.node.RepositoryRules(c.Context())
				return RepositoryRules{list}, err
			}},
		{method: "DELETE", path: "repository-rules/{id}", summary: "Delete a repository rule", role: appliance.Owner,
			do: func(c call) (any, error) {
				return nil, c.node.DeleteRepositoryRule(c.Context(), c.actor, c.PathValue("id"))
			}},
	}
}

func previewRepositoryRule(c call, id string) (any, error) {
	var e appliance.RepositoryRuleEdit
	if err := c.decode(&e); err != nil {
		return nil, err
	}
	return c.node.PreviewRepositoryRule(c.Context(), id, e)
}
