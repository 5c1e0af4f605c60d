package appliance

import (
	"strings"

	"wuamesh/agentproto"
	"wuamesh/replicate"
)

// What a file of rules says of one package, profile or group.

// A ruleSet is what a file says: things by kind and name. A kind that the file
// does not mention is not in it, and stays as it is.
type ruleSet struct {
	said  map[string]map[string]fileThing
	order []string // of the profiles, the weakest first; nil when it is not said
	prune bool     // what it does not have goes, of the kinds that it mentions
}

// goes says that taking the file in deletes a group.
func (s ruleSet) goes(group string) bool {
	return s.prune && group != everyone && s.said["group"] != nil && s.said["group"][group] == nil
}

// targets are the groups that have to be there already for something to be
// given to them: those of the file will be.
func (s ruleSet) targets(groups []string) (rest []string, err error) {
	for _, g := range groups {
		switch {
		case s.goes(g):
			return nil, invalid("groups", "The group %.64s is not in the file and would be deleted: nothing can be given to it.", g)
		case s.said["group"][g] == nil:
			rest = append(rest, g)
		}
	}
	return rest, nil
}

// A fileThing is a package, a profile or a group as a file has it.
type fileThing interface {
	// checked is the thing made exact, or what is wrong with it.
	checked(c *catalogue, name string, of ruleSet) (fileThing, error)
	// over is what storing it makes of a state.
	over(was versionState) versionState
	change(c *catalogue, name string) change
	store(a *Appliance, tx *replicate.Tx, by Actor, name string) error
}

// packageInFile is a package as a file has it.
type packageInFile struct{ PackageEdit }

func (e packageInFile) checked(c *catalogue, name string, of ruleSet) (fileThing, error) {
	rest, err := of.targets(e.Groups)
	if err != nil {
		return e, err
	}
	there := e.PackageEdit
	there.Groups = rest
	return e, there.check(c, name)
}

func (e packageInFile) over(versionState) versionState {
	s := versionState{&versionHead{Description: e.Description, Maturity: e.Maturity}, targetEntries(e.Groups, e.Hosts)}
	for _, l := range e.Lines {
		s.entries[strings.TrimPrefix(lineID("", l), "/")] = true
	}
	return s
}

func (e packageInFile) change(c *catalogue, name string) change {
	return c.packageChange(name, e.PackageEdit)
}

func (e packageInFile) store(a *Appliance, tx *replicate.Tx, by Actor, name string) error {
	old, _, err := packages.find(tx, name)
	if err != nil {
		return err
	}
	return a.writePackage(tx, by, name, e.PackageEdit, old, "import rule package")
}

// profileInFile is a settings profile as a file has it.
type profileInFile struct{ ProfileEdit }

func (e profileInFile) checked(c *catalogue, name string, of ruleSet) (fileThing, error) {
	rest, err := of.targets(e.Groups)
	if err != nil {
		return e, err
	}
	there := e.ProfileEdit
	there.Groups = rest
	there, err = there.check(c, name)
	there.Groups = e.Groups
	return profileInFile{there}, err
}

func (e profileInFile) over(versionState) versionState {
	s := versionState{&versionHead{Description: e.Description}, targetEntries(e.Groups, e.Hosts)}
	for key, value := range e.Options {
		s.entries[optionEntry+key+"="+value] = true
	}
	return s
}

func (e profileInFile) change(c *catalogue, name string) change {
	return c.profileChange(name, e.ProfileEdit)
}

func (e profileInFile) store(a *Appliance, tx *replicate.Tx, by Actor, name string) error {
	old, _, err := profiles.find(tx, name)
	if err != nil {
		return err
	}
	return a.writeProfile(tx, by, name, e.ProfileEdit, old, "import settings profile")
}

// groupInFile is a group as a file has it.
type groupInFile struct {
	GroupEdit
	keeps bool // its members, whoever they are
}

func (e groupInFile) checked(c *catalogue, name string, _ ruleSet) (fileThing, error) {
	if err := e.GroupEdit.check(c, name); err != nil || e.Condition == nil {
		return e, err
	}
	condition, err := e.Condition.checked()
	e.Condition = &condition
	return e, err
}

func (e groupInFile) over(was versionState) versionState {
	s := versionState{&versionHead{Description: e.Description}, map[string]bool{}}
	for entry := range was.entries {
		if e.keeps && strings.HasPrefix(entry, memberEntry) {
			s.entries[entry] = true
		}
	}
	for _, h := range e.Members {
		s.entries[memberEntry+string(h)] = true
	}
	for _, m := range e.Accepts {
		s.entries[acceptEntry+string(m)] = true
	}
	for key, value := range e.Settings {
		s.entries[optionEntry+key+"="+value] = true
	}
	if e.Condition != nil {
		for _, k := range e.Condition.keys() {
			s.entries[termEntry+string(k.fact)+"/"+k.value] = true
		}
	}
	return s
}

func (e groupInFile) change(c *catalogue, name string) change {
	if e.keeps {
		e.Members = c.given(name)
	}
	return c.groupChange(name, e.GroupEdit)
}

func (e groupInFile) store(a *Appliance, tx *replicate.Tx, by Actor, name string) error {
	old, _, err := groups.find(tx, name)
	if err != nil {
		return err
	}
	if e.keeps {
		for r, err := range members.all(tx, name+"/") {
			if err != nil {
				return err
			}
			e.Members = append(e.Members, agentproto.HostID(strings.TrimPrefix(r.id, name+"/")))
		}
	}
	return a.writeGroup(tx, by, name, e.GroupEdit, old, "import group")
}

// targetEntries are the entries of a state that say whom it is for.
func targetEntries(groups []string, hosts []agentproto.HostID) map[string]bool {
	entries := map[string]bool{}
	for _, g := range groups {
		entries["group/"+g] = true
	}
	for _, h := range hosts {
		entries["host/"+string(h)] = true
	}
	return entries
}
