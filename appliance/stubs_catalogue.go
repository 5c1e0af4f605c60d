package appliance

import (
	"context"
	"errors"

	"wuamesh/agentproto"
	"wuamesh/agentproto/rules"
)

func (a *Appliance) Status(ctx context.Context) (Status, error) {
	return Status{}, errors.ErrUnsupported
}
func (a *Appliance) Updates(ctx context.Context, q UpdateQuery) (UpdateList, error) {
	return UpdateList{}, errors.ErrUnsupported
}
func (a *Appliance) UpdateByID(ctx context.Context, id rules.UpdateID) (UpdateDetail, error) {
	return UpdateDetail{}, errors.ErrUnsupported
}
func (a *Appliance) Hosts(ctx context.Context, q HostQuery) (HostList, error) {
	return HostList{}, errors.ErrUnsupported
}
func (a *Appliance) Host(ctx context.Context, id agentproto.HostID) (HostDetail, error) {
	return HostDetail{}, errors.ErrUnsupported
}

// HostUpdates lists the updates of one host, what needs an admin first; states nil for all.
func (a *Appliance) HostUpdates(ctx context.Context, id agentproto.HostID, text string, states []rules.State, p Page) (list []HostUpdate, total int, next string, err error) {
	return nil, 0, "", errors.ErrUnsupported
}
func (a *Appliance) Why(ctx context.Context, id agentproto.HostID, update rules.UpdateID) (Why, error) {
	return Why{}, errors.ErrUnsupported
}

// Trigger queues action for hosts (or every member of group) and tells them at once; it returns how many.
func (a *Appliance) Trigger(ctx context.Context, by Actor, action agentproto.Action, hosts []agentproto.HostID, group string) (int, error) {
	return 0, errors.ErrUnsupported
}
func (a *Appliance) ApproveHost(ctx context.Context, by Actor, id agentproto.HostID) error {
	return errors.ErrUnsupported
}
func (a *Appliance) RemoveHost(ctx context.Context, by Actor, id agentproto.HostID) error {
	return errors.ErrUnsupported
}

func (a *Appliance) Packages(ctx context.Context) ([]PackageRow, error) {
	return nil, errors.ErrUnsupported
}
func (a *Appliance) Package(ctx context.Context, name string) (PackageDetail, error) {
	return PackageDetail{}, errors.ErrUnsupported
}

// PutPackage makes or replaces a package, as one change set; created says which.
func (a *Appliance) PutPackage(ctx context.Context, by Actor, name string, e PackageEdit) (created bool, err error) {
	return false, errors.ErrUnsupported
}
func (a *Appliance) DeletePackage(ctx context.Context, by Actor, name string) error {
	return errors.ErrUnsupported
}

// AddLines puts lines into a package that exists; a line with the other verb for the same kind and value is taken out.
func (a *Appliance) AddLines(ctx context.Context, by Actor, name string, lines []rules.Line) error {
	return errors.ErrUnsupported
}
func (a *Appliance) RemoveLines(ctx context.Context, by Actor, name string, lines []rules.Line) error {
	return errors.ErrUnsupported
}
func (a *Appliance) Groups(ctx context.Context) ([]GroupRow, error) {
	return nil, errors.ErrUnsupported
}
func (a *Appliance) Group(ctx context.Context, name string) (GroupRow, error) {
	return GroupRow{}, errors.ErrUnsupported
}
func (a *Appliance) PutGroup(ctx context.Context, by Actor, name string, e GroupEdit) (created bool, err error) {
	return false, errors.ErrUnsupported
}
func (a *Appliance) DeleteGroup(ctx context.Context, by Actor, name string) error {
	return errors.ErrUnsupported
}

// Category gives the title of a product or classification some host reported.
func (a *Appliance) Category(id rules.CategoryID) (agentproto.Category, bool) {
	return agentproto.Category{}, false
}
