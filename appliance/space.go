package appliance

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"wuamesh/appliance/microsoft"
	"wuamesh/replicate/swarm"
)

// spaceCheck is how often a download that waits for space looks again.
const spaceCheck = time.Minute

// fits says whether a download may start: what it still brings has to leave
// the floor free. If not, it says so for people.
func (f *folder) fits(t *task, free int64) (problem, hint string) {
	if p, full := AsProblem(f.node.db.Full()); full { // what came could not be recorded
		return p.Msg, p.Hint
	}
	need := max(t.Size-t.Done, 0)
	if free >= need+int64(f.node.config().DiskFloor) {
		return "", ""
	}
	return f.full(free, need)
}

// full is what people read about a disk without room for need bytes.
func (f *folder) full(free, need int64) (problem, hint string) {
	floor := int64(f.node.config().DiskFloor)
	problem = fmt.Sprintf("%s has %s free and needs %s.", f.node.NodeName(), bytesText(max(free, 0)), bytesText(need+floor))
	hint = "It goes on by itself when there is space: delete unused files, or give the folder a larger disk."
	if floor > 0 {
		hint = fmt.Sprintf("It goes on by itself when there is space: delete unused files, or lower disk_floor, which keeps %s free.", bytesText(floor))
	}
	return problem, hint
}

// foundFull says for people which disk was too full for a download, if that is
// what ended it.
func (f *folder) foundFull(err error) (problem, hint string, ok bool) {
	if p, full := AsProblem(err); full && p.Kind == Full {
		return p.Msg, p.Hint, true
	}
	need := int64(0)
	if full, ok := errors.AsType[*microsoft.FullError](err); ok {
		need = full.Need - int64(f.node.config().DiskFloor)
	} else if full, ok := errors.AsType[*swarm.FullError](err); ok {
		need = full.Need
	} else if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return "", "", false
	}
	problem, hint = f.full(f.free(), need)
	return problem, hint, true
}

// free is the space on the folder's disk; a disk that does not tell is left
// to the download to find full.
func (f *folder) free() int64 {
	n, err := microsoft.Free(f.dir)
	if err != nil {
		return 1 << 62
	}
	return n
}
