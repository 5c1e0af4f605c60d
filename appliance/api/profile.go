package api

import "wuamesh/appliance"

// Profiles answers GET profiles, the weakest first.
type Profiles struct {
	Profiles []appliance.ProfileRow `json:"profiles"`
}

// profile are the routes about settings profiles.
func profile() []route {
	return []route{
		{method: "GET", path: "profiles", summary: "Settings profiles of agents, in their order: of two given alike the later one wins", role: appliance.Viewer, answer: Profiles{},
			do: func(c call) (any, error) {
				list, err := c.node.Profiles(c.Context())
				return Profiles{list}, err
			}},
		{method: "GET", path: "profiles/{name}", summary: "One settings profile: who set what, and where others say something else", role: appliance.Viewer, answer: appliance.ProfileDetail{}, do: profileOf},
		{method: "PUT", path: "profiles/{name}", summary: "Make or replace a settings profile; only what differs is written", role: appliance.Owner, body: appliance.ProfileEdit{}, answer: appliance.ProfileDetail{},
			do: func(c call) (any, error) {
				var e appliance.ProfileEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				if _, err := c.node.PutProfile(c.Context(), c.actor, c.PathValue("name"), e); err != nil {
					return nil, err
				}
				return profileOf(c)
			}},
		{method: "POST", path: "profiles/{name}/preview", summary: "What storing the same edit would do: settings and decisions of hosts, from what to what; nothing is stored", role: appliance.Viewer, body: appliance.ProfileEdit{}, answer: appliance.Impact{},
			do: func(c call) (any, error) {
				var e appliance.ProfileEdit
				if err := c.decode(&e); err != nil {
					return nil, err
				}
				return c.node.PreviewProfile(c.Context(), c.PathValue("name"), e)
			}},
		{method: "GET", path: "profiles/{name}/deletion", summary: "What deleting the profile would do", role: appliance.Viewer, answer: appliance.Impact{},
			do: func(c call) (any, error) { return c.node.PreviewDeleteProfile(c.Context(), c.PathValue("name")) }},
		{method: "DELETE", path: "profiles/{name}", summary: "Delete a settings profile; its versions stay", role: appliance.Owner,
			do: func(c call) (any, error) { return nil, c.node.DeleteProfile(c.Context(), c.actor, c.PathValue("name")) }},
		{method: "GET", path: "profiles/{name}/versions", summary: "The edits of a profile, the latest first; of a deleted one, too", role: appliance.Viewer, answer: []appliance.PackageVersion{},
			do: func(c call) (any, error) { return c.node.ProfileVersions(c.Context(), c.PathValue("name")) }},
		{method: "GET", path: "profiles/{name}/versions/{version}", summary: "The profile as it was after an edit", role: appliance.Viewer, answer: appliance.ProfileVersion{},
			do: func(c call) (any, error) {
				return c.node.ProfileVersion(c.Context(), c.PathValue("name"), c.PathValue("version"))
			}},
		{method: "GET", path: "profiles/{name}/versions/{version}/impact", summary: "What going back to the version would do; nothing is stored", role: appliance.Viewer, answer: appliance.Impact{},
			do: func(c call) (any, error) {
				return c.node.PreviewProfileVersion(c.Context(), c.PathValue("name"), c.PathValue("version"))
			}},
		{method: "POST", path: "profiles/{name}/versions/{version}/restore", summary: "Go back to a version, as a new one; a deleted profile is there again", role: appliance.Owner, answer: appliance.ProfileDetail{},
			do: func(c call) (any, error) {
				if err := c.node.RestoreProfile(c.Context(), c.actor, c.PathValue("name"), c.PathValue("version")); err != nil {
					return nil, err
				}
				return profileOf(c)
			}},
		{method: "POST", path: "profiles/{name}/versions/{version}/undo", summary: "Take the edit back that made the version, unless somebody edited the profile since", role: appliance.Owner, answer: appliance.ProfileDetail{},
			do: func(c call) (any, error) {
				if err := c.node.UndoProfile(c.Context(), c.actor, c.PathValue("name"), c.PathValue("version")); err != nil {
					return nil, err
				}
				return profileOf(c)
			}},
		{method: "GET", path: "deleted-profiles", summary: "Settings profiles that were deleted and can be brought back", role: appliance.Viewer, answer: []appliance.DeletedPackage{},
			do: func(c call) (any, error) { return c.node.DeletedProfiles(c.Context()) }},
	}
}

func profileOf(c call) (any, error) { return c.node.Profile(c.Context(), c.PathValue("name")) }
