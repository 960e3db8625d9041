<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use Error;

/**
 * The process ended in the middle of its work.
 */
final class Killed extends Error
{
}
