// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice For tests alone: an ERC-20 that anybody can mint, and that can misbehave as real ones do.
contract TestToken {
    enum Mode {
        Honest,
        ReturnsNothing,
        ReturnsFalse,
        TakesFee,
        Reenters
    }

    string public constant name = "Test USD";
    string public constant symbol = "tUSD";
    uint8 public constant decimals = 6;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    Mode public mode;
    address public target;
    bytes public data;
    bool public tried;
    bool public succeeded;
    bytes public answer;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        return true;
    }

    function behave(Mode next) external {
        mode = next;
    }

    /// From now on every transfer first calls `to` with `what`.
    function arm(address to, bytes calldata what) external {
        (mode, target, data, tried, succeeded) = (Mode.Reenters, to, what, false, false);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        return move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        allowance[from][msg.sender] -= value;
        return move(from, to, value);
    }

    function move(address from, address to, uint256 value) private returns (bool) {
        if (mode == Mode.ReturnsFalse) return false;
        if (mode == Mode.Reenters && !tried) {
            tried = true;
            (succeeded, answer) = target.call(data);
        }
        balanceOf[from] -= value;
        uint256 fee = mode == Mode.TakesFee ? value / 100 : 0;
        balanceOf[to] += value - fee;
        emit Transfer(from, to, value - fee);
        if (mode == Mode.ReturnsNothing) {
            assembly {
                return(0, 0)
            }
        }
        return true;
    }
}
