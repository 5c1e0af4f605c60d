package api

import (
	"wuamesh/agentproto"
	"wuamesh/appliance"
)

// Members is the body of POST groups/{name}/members.
type Members struct {
	Add  []agentproto.HostID `json:"add"`
	Drop []agentproto.HostID `json:"drop"`
}

// group are the routes of groups of hosts.
func group() []route {
	return []route{
		{method: "GET", path: "groups", summary: "Groups of hosts", role: appliance.Viewer, answer: []appliance.GroupRow{},
			do: func(c call) (any, error) { return c.node.Groups(c.Context()) }},
		{method: "GET", path: "groups/{name}", summary: "One group", role: appliance.Viewer, answer: appliance.GroupRow{}, do: groupOf},
		{method: "PUT", path: "groups/{name}", summary: "Make or replace a group; only what differs is written", role: appliance.Owner, body: appliance.GroupEdit{}, answer: appliance.GroupRow{},
			do: func(c call) (any, error) {
				var e appliance.GroupEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				if _, err := c.node.PutGroup(c.Context(), c.actor, c.PathValue("name"), e); err != nil {
					return nil, err
				}
				return groupOf(c)
			}},
		{method: "POST", path: "groups/{name}/preview", summary: "What storing the same edit of the group would do; nothing is stored", role: appliance.Viewer, body: appliance.GroupEdit{}, answer: appliance.Impact{},
			do: func(c call) (any, error) {
				var e appliance.GroupEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				return c.node.PreviewGroup(c.Context(), c.PathValue("name"), e)
			}},
		{method: "POST", path: "groups/{name}/members/preview", summary: "Who would be in the group after storing the same edit; nothing is stored", role: appliance.Viewer, body: appliance.GroupEdit{}, answer: appliance.Membership{},
			do: func(c call) (any, error) {
				var e appliance.GroupEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				return c.node.PreviewMembers(c.Context(), c.PathValue("name"), e)
			}},
		{method: "POST", path: "groups/{name}/members", summary: "Give hosts to the group one by one, or take some out; all else stays", role: appliance.Owner, body: Members{}, answer: appliance.GroupRow{},
			do: func(c call) (any, error) {
				var m Members
				if err := c.decode(&m); err != nil {
					return nil, err
				}
				if err := c.node.EditMembers(c.Context(), c.actor, c.PathValue("name"), m.Add, m.Drop); err != nil {
					return nil, err
				}
				return groupOf(c)
			}},
		{method: "GET", path: "groups/{name}/deletion", summary: "What deleting the group would do", role: appliance.Viewer, answer: appliance.Impact{},
			do: func(c call) (any, error) { return c.node.PreviewDeleteGroup(c.Context(), c.PathValue("name")) }},
		{method: "DELETE", path: "groups/{name}", summary: "Delete a group; its versions stay", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.DeleteGroup(c.Context(), c.actor, c.PathValue("name")) }},
		{method: "GET", path: "groups/{name}/versions", summary: "The edits of a group, the latest first; of a deleted one, too", role: appliance.Viewer, answer: []appliance.PackageVersion{},
			do: func(c call) (any, error) { return c.node.GroupVersions(c.Context(), c.PathValue("name")) }},
		{method: "GET", path: "groups/{name}/versions/{version}", summary: "The group as it was after an edit", role: appliance.Viewer, answer: appliance.GroupVersion{},
			do: func(c call) (any, error) {
				return c.node.GroupVersion(c.Context(), c.PathValue("name"), c.PathValue("version"))
			}},
		{method: "GET", path: "groups/{name}/versions/{version}/impact", summary: "What going back to the version would do; nothing is stored", role: appliance.Viewer, answer: appliance.Impact{},
			do: func(c call) (any, error) {
				return c.node.PreviewGroupVersion(c.Context(), c.PathValue("name"), c.PathValue("version"))
			}},
		{method: "POST", path: "groups/{name}/versions/{version}/restore", summary: "Go back to a version, as a new one; a deleted group is there again, with the packages and profiles it had", role: appliance.Owner, answer: appliance.GroupRow{},
			do: func(c call) (any, error) {
				if err := c.node.RestoreGroup(c.Context(), c.actor, c.PathValue("name"), c.PathValue("version")); err != nil {
					return nil, err
				}
				return groupOf(c)
			}},
		{method: "POST", path: "groups/{name}/versions/{version}/undo", summary: "Take the edit back that made the version, unless somebody edited the group since", role: appliance.Owner, answer: appliance.GroupRow{},
			do: func(c call) (any, error) {
				if err := c.node.UndoGroup(c.Context(), c.actor, c.PathValue("name"), c.PathValue("version")); err != nil {
					return nil, err
				}
				return groupOf(c)
			}},
		{method: "GET", path: "deleted-groups", summary: "Groups that were deleted and can be brought back", role: appliance.Viewer, answer: []appliance.DeletedPackage{},
			do: func(c call) (any, error) { return c.node.DeletedGroups(c.Context()) }},
	}
}

func groupOf(c call) (any, error) { return c.node.Group(c.Context(), c.PathValue("name")) }
