# list what you can do here
default:
    @just --list

# one node here, with its data in ./wuamesh-data; it prints where to look
dev:
    go run . serve --dev

# three nodes, a stand-in for Microsoft and forty hosts in one process
demo *flags:
    go run . demo {{ flags }}

# regenerate what is generated
generate:
    go tool -modfile=packaging/tools.mod templ generate -path ui

# everything CI runs
check:
    ./packaging/check

# what is quick of it
quick:
    ./packaging/check quick

# the agent's installer for Windows, in packaging/out: just msi -sign-certs chain.pem -sign-key key.pem
msi *flags:
    go run ./packaging/windows/msi {{ flags }}

# the Debian packages, amd64 and arm64, in packaging/out, with the installer in them
deb *flags: msi
    go run ./packaging/deb {{ flags }}

# fuzz one target: just fuzz FuzzNameFromURL ./appliance/microsoft
fuzz target pkg time="60s":
    go test -run='^$' -fuzz='^{{ target }}$' -fuzztime={{ time }} {{ pkg }}

# the mesh in virtual time, for hours if you like: just soak 1000 100
soak seeds="500" nodes="0":
    go test -timeout=24h -run='TestSimulation|TestRulesHold' ./replicate -seeds={{ seeds }} -model-seeds={{ seeds }} -nodes={{ nodes }}

# the figures of README's performance table; a fleet of 100,000 hosts is apart:
# go test -run='^$' -bench=Scale -benchtime=1x -timeout=20m ./appliance
bench:
    go test -run='^$' -bench='Update|Scan|FirstSync|Spread|Burst/mesh' -benchtime=2s ./replicate
    go test -run='^$' -bench=. -skip=Scale -benchtime=2s ./agentproto/rules ./appliance ./appliance/microsoft
