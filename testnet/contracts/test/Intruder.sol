// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice For tests alone: an account with code. When coin arrives it calls whatever it was armed with, or refuses the coin.
contract Intruder {
    address public target;
    bytes public data;
    bool public tried;
    bool public succeeded;
    bytes public answer;
    bool public refuses;

    function arm(address to, bytes calldata what) external {
        (target, data, tried, succeeded) = (to, what, false, false);
    }

    function refuse(bool yes) external {
        refuses = yes;
    }

    /// Does anything, as this account.
    function run(address to, uint256 value, bytes calldata what) external payable {
        (bool done, bytes memory why) = to.call{value: value}(what);
        if (!done) {
            assembly {
                revert(add(why, 32), mload(why))
            }
        }
    }

    receive() external payable {
        require(!refuses, "no coin here");
        if (target != address(0) && !tried) {
            tried = true;
            (succeeded, answer) = target.call(data);
        }
    }
}
