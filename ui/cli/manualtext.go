package cli

// The prose of the manual page: what no table can say. A line that begins
// with a tab belongs to the term above it, four spaces make an example.

const manualIntro = `wuamesh brings Windows updates to branch offices. A node fetches wsusscn2.cab and the update files its
hosts need from Microsoft, or from other nodes, each once; agents on the hosts scan with Windows' own engine,
take files from the nearest node, and install what the rules allow. serve runs the node; all other commands
that look or change ask a running node through its API: the one on this machine, as root or its own user,
or any other with --node and --token.`

const manualConfig = `After a change run systemctl reload wuamesh: the file is checked first, and a wrong one changes nothing.
data, folder and the listen_ keys need a restart, which the reload then says; everything else changes at once.
Unknown keys are errors that name the nearest known key.`

// manualSections follow the commands.
var manualSections = []struct{ title, text string }{
	{"Files", `
/etc/wuamesh/wuamesh.toml
	The configuration: wuamesh.toml(5).

/var/lib/wuamesh
	Records and keys of the node. Back it up with wuamesh backup, never by copying it while the node runs.

/var/www/waptwua
	The folder: wsusscn2.cab and the update files, served at /waptwua/. Whatever is put there is verified before it is
	served. It needs no backup: what is missing is fetched again.

/usr/share/wuamesh/wuamesh-agent.msi
	The agent's installer, served by every node.

/run/wuamesh/motd
	Shown at login until the node is set up; readable by root alone, because it has the setup link.`},
	{"Environment", `
WUAMESH_NODE, WUAMESH_TOKEN, WUAMESH_PIN
	Stand for --node, --token and --pin.`},
	{"Exit status", `
0 done, 1 failed, 2 wrong usage, 3 differences that rules diff --exit-code found.`},
	{"Service", `
wuamesh.service runs the node as user wuamesh, without root and without a way to become it. Ports 443 and 80 are held by
wuamesh-https.socket and wuamesh-http.socket, so that no connection is refused while the node restarts. To listen elsewhere
set listen_https or listen_http and disable the socket that is not wanted any more:

    systemctl disable --now wuamesh-http.socket

To keep the folder on another disk, set folder and let the service write there:

    systemctl edit wuamesh.service
    [Service]
    ReadWritePaths=/srv/waptwua

Then give that directory to the user: chown wuamesh: /srv/waptwua.

Log lines carry fields: journalctl -u wuamesh WUAMESH_PART=folder shows one part, WUAMESH_HOST=ID one host.`},
	{"A WAPT server on the same machine", `
Both want ports 80 and 443, and by default the folder /var/www/waptwua. Stop WAPT's server and its nginx, run wuamesh import-wapt,
and start wuamesh: it reads every file in the folder once, serves those that are what their names say, and leaves others alone.`},
	{"Firewall", `
Agents, browsers and other nodes reach a node on 443/tcp, and agents the folder alone on 80/tcp. Nodes that cannot be called,
behind NAT or a firewall, are reached by the connections they open themselves. A node with internet = true reaches Microsoft's
update hosts, or its proxy, on 80/tcp and 443/tcp. With nftables:

    nft add rule inet filter input tcp dport { 80, 443 } accept

With ufw:

    ufw allow 80,443/tcp

wuamesh doctor says which of them cannot be reached.`},
	{"AppArmor and SELinux", `
Debian ships no AppArmor profile for wuamesh and needs none: the unit's own sandbox lets the node write to its data and folder
and nowhere else. A profile of your own must allow reading /etc/wuamesh, writing /var/lib/wuamesh, /run/wuamesh and the folder,
and sockets of the families inet, inet6, unix and netlink.

Under SELinux label the folder and the data so that the service may write them, and the ports if you change them:

    semanage fcontext -a -t var_lib_t '/var/www/waptwua(/.*)?'
    restorecon -R /var/www/waptwua`},
	{"See also", `
wuamesh.toml(5), systemctl(1), journalctl(1)`},
}
