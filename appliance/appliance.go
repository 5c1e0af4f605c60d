package appliance

// Appliance is one node.
type Appliance struct{}
