package microsoft

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A Reached is what asking Microsoft for one byte of the scan cab brought.
type Reached struct {
	Status int       // of HTTP; 200 or 206 when all is well
	Date   time.Time // the other side's clock; zero when it does not say
}

// Probe asks for one byte of the scan cab, the way a download would.
func (s *Source) Probe(ctx context.Context) (Reached, error) {
	req, err := s.request(ctx, ScanCabURL)
	if err != nil {
		return Reached{}, err
	}
	req.Header.Set("Range", "bytes=0-0")
	resp, err := s.http.Do(req)
	if err != nil {
		return Reached{}, fmt.Errorf("ask for the scan cab: %w", err)
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 1)
	date, _ := http.ParseTime(resp.Header.Get("Date"))
	return Reached{Status: resp.StatusCode, Date: date}, nil
}
