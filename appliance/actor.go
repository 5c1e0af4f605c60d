package appliance

// A Role is what an admin or a token may do; each includes the one before.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // sees everything
	Operator Role = "operator" // triggers hosts, downloads and cleaning
	Owner    Role = "owner"    // edits rules, groups, settings, admins and tokens
)

var rank = map[Role]int{Viewer: 1, Operator: 2, Owner: 3}

// An Actor is who asks for something: an admin at a page, a token at the API,
// or the node itself. Edits name their actor in the audit log.
type Actor struct {
	Name    string // of the admin or the token
	Role    Role
	Address string // where the request came from; empty for the node itself
}

// Node is the actor of what the node does by itself.
var Node = Actor{Name: "node", Role: Owner}

// May says whether the actor's role reaches r.
func (a Actor) May(r Role) bool { return rank[a.Role] >= rank[r] }

// need returns a problem that names the role that is missing.
func (a Actor) need(r Role) error {
	if a.May(r) {
		return nil
	}
	return &Problem{
		Kind: Denied, Code: "WM-501", Msg: "You need the role " + string(r) + " for this; you are " + string(a.Role) + ".",
		Hint: "Ask an owner of the mesh to do it, or to give you the role.",
	}
}
