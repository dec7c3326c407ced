# Words that scripts in the guest begin with.

# until_true SECONDS COMMAND...: waits until COMMAND succeeds.
until_true() {
    _left=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        _left=$((_left - 1))
        [ $_left -gt 0 ] || { echo "waited in vain for: $*"; return 1; }
        usleep 100000
    done
}

# namespaces: the block devices of all NVMe namespaces that are there and not empty, one a line.
# (nvme0c0n1 is a path below a multipath device, not a device to use.)
namespaces() {
    for _dir in /sys/block/nvme*; do
        [ -e "$_dir" ] || continue
        _name=${_dir##*/}
        case $_name in *c*) continue ;; esac
        [ -b "/dev/$_name" ] && [ "$(cat "$_dir/size")" -gt 0 ] && echo "/dev/$_name"
    done
    return 0
}

_has_namespaces() { [ "$(namespaces | wc -l)" -ge "$1" ]; }

# wait_namespaces N: waits until at least N of them are there: the kernel probes asynchronously.
wait_namespaces() { until_true 60 _has_namespaces "$1"; }

# namespace_of SERIAL [NSID]: the block device of a namespace, by its controller's serial number.
namespace_of() {
    for _dev in $(namespaces); do
        [ "$(tr -d ' ' <"/sys/block/${_dev##*/}/device/serial")" = "$1" ] || continue
        [ "$(cat "/sys/block/${_dev##*/}/nsid")" = "${2:-1}" ] && { echo "$_dev"; return 0; }
    done
    echo "no namespace ${2:-1} of a controller with serial $1" >&2
    return 1
}

# controller_of SERIAL: the controller's character device.
controller_of() {
    for _dir in /sys/class/nvme/nvme*; do
        [ "$(tr -d ' ' <"$_dir/serial")" = "$1" ] && { echo "/dev/${_dir##*/}"; return 0; }
    done
    echo "no controller with serial $1" >&2
    return 1
}

# The shell of busybox takes its own applet before a program of the same name.
blkdiscard() { /bin/blkdiscard "$@"; }
