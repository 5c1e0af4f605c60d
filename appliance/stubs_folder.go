package appliance

import (
	"context"
	"errors"

	"wuamesh/agentproto/rules"
)

// Tasks lists downloads, running ones first, then newest; status empty for all.
func (a *Appliance) Tasks(ctx context.Context, status string, p Page) (list []Task, next string, err error) {
	return nil, "", errors.ErrUnsupported
}

// DownloadCab asks Microsoft for the scan cab now.
func (a *Appliance) DownloadCab(ctx context.Context, by Actor) error { return errors.ErrUnsupported }

// DownloadMissing is "Download index and missing cabs": the cab, then every file that hosts need and the folder lacks; it returns how many files were queued.
func (a *Appliance) DownloadMissing(ctx context.Context, by Actor) (int, error) {
	return 0, errors.ErrUnsupported
}

// DownloadUpdates queues all files of the updates, also those no host may install; it returns how many files.
func (a *Appliance) DownloadUpdates(ctx context.Context, by Actor, ids []rules.UpdateID) (int, error) {
	return 0, errors.ErrUnsupported
}

// Unused says what Clean would delete.
func (a *Appliance) Unused(ctx context.Context) (CleanPlan, error) {
	return CleanPlan{}, errors.ErrUnsupported
}

// Clean is "Delete Unused KB".
func (a *Appliance) Clean(ctx context.Context, by Actor) (CleanPlan, error) {
	return CleanPlan{}, errors.ErrUnsupported
}

// DeleteFile removes one file from the folder; it is fetched again only when an agent asks for it.
func (a *Appliance) DeleteFile(ctx context.Context, by Actor, name string) error {
	return errors.ErrUnsupported
}
