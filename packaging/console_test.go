package packaging_test

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// faults collects what the browser complains of: exceptions, and everything
// it reports as an error, such as a broken content security policy.
func faults(ctx context.Context) func() []string {
	var mu sync.Mutex
	var list []string
	chromedp.ListenTarget(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			list = append(list, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			// The stream of events ends with each page: that is no fault.
			if e.Entry.Level == log.LevelError && !strings.Contains(e.Entry.URL, "/events") {
				list = append(list, fmt.Sprintf("%s (%s)", e.Entry.Text, e.Entry.URL))
			}
		}
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return list
	}
}
