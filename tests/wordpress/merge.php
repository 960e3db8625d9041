<?php

/**
 * The plugin's decisions about synchronised accounts, without WordPress: each line of the input is a call of Merge as JSON, and each
 * line of the output what it returns.
 */

declare(strict_types=1);

use PMP\Analytics\Autoloader;
use PMP\Analytics\Sync\Merge;

require __DIR__ . '/../../wordpress/pmp-analytics/src/Autoloader.php';
(new Autoloader(__DIR__ . '/../../wordpress/pmp-analytics/src'))->register();

while (($line = fgets(STDIN)) !== false) {
    $call = json_decode($line, true, flags: JSON_THROW_ON_ERROR);
    $state = (array) $call['state'] + Merge::NEW;
    $returned = match ($call['method']) {
        'of' => get_object_vars(Merge::of($state, $call['profile'], $call['call'], $call['now'])),
        'choose' => Merge::choose($state, $call['purpose'], $call['granted'], $call['now']),
        'report' => Merge::report($state, $call['now']),
    };
    fwrite(STDOUT, json_encode($returned, JSON_THROW_ON_ERROR) . "\n");
}
